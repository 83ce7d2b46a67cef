"""How far people agree beyond chance. Plain arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha and its 95 % interval; `value` is None with a reason if undefined."""

    value: float | None
    low: float | None
    high: float | None
    n_units: int
    n_values: int
    reason: str = ""


def counts_table(units: Sequence[Sequence[Hashable]]) -> NDArray[np.float64]:
    """How often each value was given to each unit. Returns: (units, distinct values)"""
    names = sorted({value for unit in units for value in unit}, key=str)
    place = {name: index for index, name in enumerate(names)}
    table = np.zeros((len(units), len(names)))
    for row, unit in enumerate(units):
        for value in unit:
            table[row, place[value]] += 1
    return table


def nominal_alpha(table: NDArray[np.float64]) -> float | None:
    """Krippendorff's alpha for nominal values, 1 − D_o / D_e.

    Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section D; units with fewer
    than two values are not pairable and are left out. table: (units, values) of counts.
    Returns: None where fewer than two values occur, since then no disagreement was possible.
    """
    m = table.sum(axis=1)
    pairable = table[m >= 2]
    m = m[m >= 2]
    n = float(m.sum())
    if n == 0:
        return None
    observed = ((m**2 - (pairable**2).sum(axis=1)) / (m - 1)).sum() / n
    totals = pairable.sum(axis=0)
    expected = (n**2 - (totals**2).sum()) / (n * (n - 1))
    return None if expected == 0 else float(1.0 - observed / expected)


def alpha_with_interval(
    units: Sequence[Sequence[Hashable]], clusters: Sequence[Hashable], *, seed: int = 0
) -> Alpha:
    """Alpha and its percentile interval under resampling of whole clusters (here: prompts).

    units: the values given to each unit. clusters: one per unit.
    """
    kept = [(unit, cluster) for unit, cluster in zip(units, clusters, strict=True) if len(unit) > 1]
    n_values = sum(len(unit) for unit, _ in kept)
    if not kept:
        return Alpha(None, None, None, 0, 0, "nothing was judged by two people yet")
    table = counts_table([unit for unit, _ in kept])
    value = nominal_alpha(table)
    if value is None:
        reason = "everyone always gave the same answer, so chance agreement is undefined"
        return Alpha(None, None, None, len(kept), n_values, reason)
    _, cluster_of = np.unique([str(cluster) for _, cluster in kept], return_inverse=True)
    members = [np.flatnonzero(cluster_of == index) for index in range(cluster_of.max() + 1)]
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        picked = generator.integers(0, len(members), size=len(members))
        resampled = nominal_alpha(table[np.concatenate([members[index] for index in picked])])
        if resampled is not None:
            drawn.append(resampled)
    if len(members) < 2 or not drawn:
        reason = "one prompt gives no interval"
        return Alpha(value, None, None, len(kept), n_values, reason)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Alpha(value, float(low), float(high), len(kept), n_values)


def pairwise_agreement(
    answers: Sequence[tuple[Hashable, Hashable, Hashable]],
) -> dict[tuple[Hashable, Hashable], tuple[float, int]]:
    """Share of equal answers of every two annotators on what both judged.

    answers: (annotator, unit, value). Returns: {(annotator, annotator): (share, n)}, sorted pairs
    """
    by_unit: dict[Hashable, list[tuple[Hashable, Hashable]]] = {}
    for annotator, unit, value in answers:
        by_unit.setdefault(unit, []).append((annotator, value))
    equal: dict[tuple[Hashable, Hashable], list[bool]] = {}
    for given in by_unit.values():
        ordered = sorted(given, key=lambda item: str(item[0]))
        for index, (first, value) in enumerate(ordered):
            for second, other in ordered[index + 1 :]:
                equal.setdefault((first, second), []).append(value == other)
    return {pair: (sum(same) / len(same), len(same)) for pair, same in equal.items()}
