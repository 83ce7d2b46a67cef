"""How far people agree, beyond what chance would give: Krippendorff's alpha, Fleiss' kappa, shares.

Ratings come as counts: one row per unit (a comparison), one column per value (an answer), how many
annotators gave it. Who gave what does not enter these statistics, and a missing rating is a rating
that is not counted.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from annotate.statistics.bootstrap import cluster_draws, percentile_interval
from annotate.statistics.intervals import Interval

METRICS = ("nominal", "ordinal", "interval", "ratio")
Floats = NDArray[np.float64]
U = TypeVar("U", bound=Hashable)


@dataclass(frozen=True)
class Coefficient:
    """A coefficient of agreement, or `None` with the reason why there is none."""

    value: float | None
    reason: str
    #: Units with at least two ratings, and the ratings in them.
    n_units: int
    n_ratings: int
    interval: Interval | None = None


def count_ratings(
    units: Sequence[U], values: Sequence[int], n_values: int
) -> tuple[list[U], NDArray[np.int64]]:
    """The units in order of appearance, and the (units, values) table of counts."""
    places: dict[U, int] = {}
    rows = [places.setdefault(unit, len(places)) for unit in units]
    counts = np.zeros((len(places), n_values), dtype=np.int64)
    np.add.at(counts, (rows, list(values)), 1)
    return list(places), counts


def krippendorff_alpha(
    counts: ArrayLike,
    *,
    metric: str = "nominal",
    values: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Coefficient:
    """Krippendorff's alpha, 1 - D_observed / D_expected ("Computing Krippendorff's
    Alpha-Reliability", 2011), with a bootstrap interval where `clusters` are given.

    counts: (units, values); values: the numbers the columns stand for (default 1, 2, 3, …), in
    ascending order for the ordinal metric. clusters: the cluster of each unit: units of one prompt
    are drawn together, since they share what makes them easy or hard.
    """
    if metric not in METRICS:
        raise ValueError(f"metric {metric!r} is none of {', '.join(METRICS)}")
    table = _checked(counts)
    scale = (
        np.arange(1, table.shape[1] + 1, dtype=float)
        if values is None
        else np.asarray(values, float)
    )
    pairable = table.sum(axis=1) >= 2
    kept = table[pairable]
    n_units, n_ratings = len(kept), int(kept.sum())
    if n_units == 0:
        return Coefficient(None, "nobody judged what somebody else judged", 0, 0)
    coincidences = _coincidences(kept)
    value = float(_alpha(coincidences.sum(axis=0), metric, scale))
    if np.isnan(value):
        reason = "all judgments are the same, so chance agreement cannot be told apart"
        return Coefficient(None, reason, n_units, n_ratings)
    interval = None
    if clusters is not None:
        grouped = _by_cluster(coincidences, np.asarray(clusters)[pairable])
        if len(grouped) >= 2:
            drawn = cluster_draws(len(grouped), draws, seed) @ grouped.reshape(len(grouped), -1)
            samples = drawn.reshape(draws, *coincidences.shape[1:])
            interval = percentile_interval(_alpha(samples, metric, scale))
    return Coefficient(value, "", n_units, n_ratings, interval)


def fleiss_kappa(counts: ArrayLike) -> Coefficient:
    """Fleiss' kappa (Fleiss 1971, eq. 3-7); every unit needs the same number of ratings."""
    table = _checked(counts)
    sizes = table.sum(axis=1)
    n_units, n_ratings = len(table), int(sizes.sum())
    if n_units == 0 or sizes[0] < 2:
        reason = "nobody judged what somebody else judged"
        return Coefficient(None, reason, n_units, n_ratings)
    if np.any(sizes != sizes[0]):
        reason = "the units have different numbers of judgments; use alpha"
        return Coefficient(None, reason, n_units, n_ratings)
    observed = float(_agreeing_pairs(table).mean())
    expected = float(((table.sum(axis=0) / n_ratings) ** 2).sum())
    if expected == 1:
        reason = "all judgments are the same, so chance agreement cannot be told apart"
        return Coefficient(None, reason, n_units, n_ratings)
    return Coefficient((observed - expected) / (1 - expected), "", n_units, n_ratings)


def percent_agreement(counts: ArrayLike) -> float | None:
    """The mean over units of the share of pairs of ratings that agree; `None` without pairs."""
    table = _checked(counts)
    table = table[table.sum(axis=1) >= 2]
    return float(_agreeing_pairs(table).mean()) if len(table) else None


def _checked(counts: ArrayLike) -> Floats:
    table = np.asarray(counts, dtype=float)
    if table.ndim != 2:
        raise ValueError(f"counts have {table.ndim} dimensions; expected (units, values)")
    if (table < 0).any():
        raise ValueError("counts cannot be negative")
    return table


def _agreeing_pairs(table: Floats) -> Floats:
    sizes = table.sum(axis=1)
    return ((table**2).sum(axis=1) - sizes) / (sizes * (sizes - 1))


def _coincidences(table: Floats) -> Floats:
    """Per unit, how often each two values meet in its pairs of ratings: (units, values, values)."""
    sizes = table.sum(axis=1)
    pairs = table[:, :, None] * table[:, None, :]
    diagonal = np.arange(table.shape[1])
    pairs[:, diagonal, diagonal] -= table
    return pairs / (sizes - 1)[:, None, None]


def _by_cluster(coincidences: Floats, clusters: NDArray[np.generic]) -> Floats:
    _, places = np.unique(clusters, return_inverse=True)
    grouped = np.zeros((places.max() + 1, *coincidences.shape[1:]))
    np.add.at(grouped, places, coincidences)
    return grouped


def _alpha(coincidences: Floats, metric: str, scale: Floats) -> Floats:
    """Alpha of each coincidence matrix in the last two axes; NaN where it is undefined."""
    marginals = coincidences.sum(axis=-1)  # (…, V)
    distances = _distances(marginals, metric, scale)  # (…, V, V) or (V, V)
    total = marginals.sum(axis=-1)
    expected_pairs = marginals[..., :, None] * marginals[..., None, :]
    observed = (coincidences * distances).sum(axis=(-2, -1))
    expected = (expected_pairs * distances).sum(axis=(-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        alpha = 1 - (total - 1) * observed / expected
    return np.where(expected > 0, alpha, np.nan)


def _distances(marginals: Floats, metric: str, scale: Floats) -> Floats:
    """The squared distance of each two values (Krippendorff 2011, section 3)."""
    if metric == "nominal":
        return 1 - np.eye(marginals.shape[-1])
    if metric == "interval":
        return (scale[:, None] - scale[None, :]) ** 2
    if metric == "ratio":
        sums = scale[:, None] + scale[None, :]
        gaps = scale[:, None] - scale[None, :]
        return np.divide(gaps, sums, out=np.zeros_like(gaps), where=sums != 0) ** 2
    # Ordinal: the ratings from c to k, those at the two ends counted half.
    running = np.cumsum(marginals, axis=-1)
    middles = running - marginals / 2
    return (middles[..., :, None] - middles[..., None, :]) ** 2
