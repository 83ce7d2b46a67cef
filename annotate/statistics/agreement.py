"""How far people agree beyond chance. Plain arrays in, numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
#: Bootstrap samples drawn at once, to bound memory with many prompts.
AT_ONCE = 100
#: An interval of fewer defined samples than this share would claim too much.
DEFINED = 0.9


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha and its 95 % interval; what is None has its reason."""

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


def parts_of_alpha(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each unit adds to alpha, so that alpha of many units follows from sums alone.

    table: (units, values) of counts. Returns: (units, 1 + values): disagreeing pairs over m − 1,
    then the counts; zeros for units with fewer than two values, which cannot be paired.
    """
    m = table.sum(axis=1)
    pairable = (m >= 2)[:, None]
    disagreeing = (m**2 - (table**2).sum(axis=1)) / np.maximum(m - 1, 1)
    return np.where(pairable, np.column_stack([disagreeing, table]), 0.0)


def alpha_of_parts(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Krippendorff's alpha for nominal values, 1 − D_o / D_e, of summed parts.

    Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section D.
    parts: (…, 1 + values). Returns: (…), NaN where fewer than two values occur, since then no
    disagreement was possible.
    """
    totals = parts[..., 1:]
    n = totals.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = parts[..., 0] / n
        expected = (n**2 - (totals**2).sum(axis=-1)) / (n * (n - 1))
        return np.where(expected > 0, 1.0 - observed / expected, np.nan)


def nominal_alpha(table: NDArray[np.float64]) -> float | None:
    """Krippendorff's alpha of a (units, values) table of counts; None where it is undefined."""
    value = float(alpha_of_parts(parts_of_alpha(table).sum(axis=0)))
    return None if np.isnan(value) else value


def alpha_with_interval(
    units: Sequence[Sequence[Hashable]], clusters: Sequence[Hashable], *, seed: int = 0
) -> Alpha:
    """Alpha and its percentile interval under resampling of whole clusters (here: prompts).

    Answers to pairs of one prompt resemble each other, so drawing single pairs would give an
    interval that is too narrow (Davison & Hinkley 1997, section 3.8).
    units: the values given to each unit. clusters: one per unit.
    """
    kept = [(unit, cluster) for unit, cluster in zip(units, clusters, strict=True) if len(unit) > 1]
    n_values = sum(len(unit) for unit, _ in kept)
    if not kept:
        reason = "there are no judgments yet"
        if any(units):
            reason = "nothing was judged by two people yet"
        return Alpha(None, None, None, 0, 0, reason)
    table = counts_table([unit for unit, _ in kept])
    value = nominal_alpha(table)
    if value is None:
        reason = "everyone always gave the same answer, so chance agreement is undefined"
        return Alpha(None, None, None, len(kept), n_values, reason)
    _, cluster_of = np.unique([str(cluster) for _, cluster in kept], return_inverse=True)
    parts = np.zeros((cluster_of.max() + 1, table.shape[1] + 1))
    np.add.at(parts, cluster_of, parts_of_alpha(table))
    if len(parts) < 2:
        reason = "no interval, because all answers are about one prompt"
        return Alpha(value, None, None, len(kept), n_values, reason)
    drawn = bootstrap(parts, alpha_of_parts, seed=seed)
    defined = drawn[~np.isnan(drawn)]
    if len(defined) < DEFINED * len(drawn):
        reason = "no interval, because too few prompts have different answers"
        return Alpha(value, None, None, len(kept), n_values, reason)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Alpha(value, float(low), float(high), len(kept), n_values)


def bootstrap(
    parts: NDArray[np.float64],
    of: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    seed: int,
) -> NDArray[np.float64]:
    """A figure of RESAMPLES draws of as many clusters.

    parts: (clusters, p) what adds up over clusters. of: sums (…, p) to the figure (…).
    """
    n = len(parts)
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(0, RESAMPLES, AT_ONCE):
        times = generator.multinomial(n, np.full(n, 1 / n), size=AT_ONCE)  # (AT_ONCE, clusters)
        drawn.append(of(times @ parts))
    return np.concatenate(drawn)


def fleiss_kappa(table: NDArray[np.float64]) -> float | None:
    """Fleiss' kappa of a (units, values) table of counts (Fleiss 1971, equations 3 to 7).

    Returns: None where units have different numbers of values or fewer than two, or where only one
    value occurs.
    """
    sizes = table.sum(axis=1)
    if not len(table) or sizes[0] < 2 or (sizes != sizes[0]).any():
        return None
    size = sizes[0]
    observed = float((((table**2).sum(axis=1) - size) / (size * (size - 1))).mean())
    expected = float(((table.sum(axis=0) / sizes.sum()) ** 2).sum())
    return None if expected == 1 else (observed - expected) / (1 - expected)


def cohen_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Cohen's kappa of two annotators' values for the same units (Cohen 1960, equation 1).

    Returns: None where both always gave the same one value, or nothing.
    """
    n = len(pairs)
    if not n:
        return None
    observed = sum(first == second for first, second in pairs) / n
    firsts = Counter(first for first, _ in pairs)
    seconds = Counter(second for _, second in pairs)
    expected = sum(firsts[value] * seconds[value] for value in firsts) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


@dataclass(frozen=True)
class PairOfAnnotators:
    """Share of equal answers of two annotators on the n units both judged, and Cohen's kappa."""

    share: float
    n: int
    kappa: float | None


def pairwise_agreement(
    answers: Sequence[tuple[Hashable, Hashable, Hashable]],
) -> dict[tuple[Hashable, Hashable], PairOfAnnotators]:
    """How every two annotators agree on what both judged.

    answers: (annotator, unit, value). Returns: {(annotator, annotator): …}, sorted pairs
    """
    by_unit: dict[Hashable, list[tuple[Hashable, Hashable]]] = {}
    for annotator, unit, value in answers:
        by_unit.setdefault(unit, []).append((annotator, value))
    met: dict[tuple[Hashable, Hashable], list[tuple[Hashable, Hashable]]] = {}
    for given in by_unit.values():
        ordered = sorted(given, key=lambda item: str(item[0]))
        for index, (first, value) in enumerate(ordered):
            for second, other in ordered[index + 1 :]:
                met.setdefault((first, second), []).append((value, other))
    return {
        people: PairOfAnnotators(
            share=sum(first == second for first, second in values) / len(values),
            n=len(values),
            kappa=cohen_kappa(values),
        )
        for people, values in met.items()
    }
