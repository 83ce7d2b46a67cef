"""Intervals for held-out figures: pairs of one prompt are not independent, so prompts are drawn.

One prompt alone says nothing of others: there is no interval then, and both ends are None.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
#: Quantile of the normal distribution for 95 %.
Z = 1.96
#: Draws that are in memory at once.
DRAWS_AT_ONCE = 2_000_000
#: (value, low, high): not a number where nothing was measured, no ends where nothing can be drawn.
Interval = tuple[float, float | None, float | None]


def clustered_interval(
    values: Sequence[float], clusters: Sequence[str], *, seed: int = 0
) -> Interval:
    """Mean of `values` and its 95 % percentile interval under resampling of whole clusters.

    Cluster bootstrap (Field & Welsh 2007). values, clusters: one per row, the same length.
    Returns: (mean, low, high)
    """
    if not len(values):
        return math.nan, None, None
    names, cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(cluster_of, weights=np.asarray(values, dtype=float), minlength=len(names))
    counts = np.bincount(cluster_of, minlength=len(names))
    mean = float(sums.sum() / counts.sum())
    if len(names) < 2:
        return mean, None, None
    draws = drawn_clusters(len(names), seed)
    means = [sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1) for drawn in draws]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return mean, float(low), float(high)


def with_ends(name: str, found: Sequence[float | None]) -> dict[str, Any]:
    """A figure with the ends of its interval, as three entries; None where there is none."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))


def drawn_clusters(n: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """`RESAMPLES` resamples of n clusters, as many at a time as memory is meant for.

    Yields: (resamples, n) numbers of clusters
    """
    generator = np.random.default_rng(seed)
    at_once = max(1, DRAWS_AT_ONCE // n)
    for done in range(0, RESAMPLES, at_once):
        yield generator.integers(0, n, size=(min(at_once, RESAMPLES - done), n))


def resampled_counts(n: int, *, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """How often each of n clusters is in each resample, for figures that are no means.

    Yields: (resamples, n)
    """
    for drawn in drawn_clusters(n, seed):
        yield np.stack([np.bincount(each, minlength=n) for each in drawn]).astype(float)


def share_interval(hits: Sequence[float], clusters: Sequence[str]) -> Interval:
    """A share of rows with its 95 % interval: that of whole clusters, or Wilson's for as many
    independent rows as there are clusters, whichever reaches further.

    hits: 1 or 0, or what lies between for half a hit.
    A bootstrap of a few rows that are all right knows no doubt, Wilson's interval does.
    Returns: (share, low, high)
    """
    share, low, high = clustered_interval([float(hit) for hit in hits], clusters)
    if low is None or high is None:
        return share, None, None
    least, most = wilson(share, len(set(clusters)))
    return share, min(low, least), max(high, most)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Ends of the 95 % interval of a share of n independent rows (Wilson 1927)."""
    centre = share + Z * Z / (2 * n)
    spread = Z * math.sqrt(share * (1.0 - share) / n + Z * Z / (4 * n * n))
    scale = 1.0 + Z * Z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def clustered_correlation(
    differences: Sequence[float], clusters: Sequence[str], *, seed: int = 0
) -> Interval:
    """Pearson's correlation of being chosen (1, -1) with a quantity within its pair, and its 95 %
    percentile interval under resampling of whole clusters.

    Both are centred within a pair, so that with d the difference of chosen and rejected it is
    Σd / √(n Σd²). differences, clusters: one per pair, not all of them 0.
    Returns: (correlation, low, high)
    """
    names, cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
    found = np.asarray(differences, dtype=float)
    sums, squares, counts = (
        np.bincount(cluster_of, weights=weights, minlength=len(names))
        for weights in (found, found * found, np.ones_like(found))
    )

    def of(at: Any) -> Any:
        below = np.sqrt(counts[at].sum(axis=-1) * squares[at].sum(axis=-1))
        return sums[at].sum(axis=-1) / np.maximum(below, np.finfo(float).tiny)

    value = float(of(slice(None)))
    if len(names) < 2:
        return value, None, None
    drawn = [of(each) for each in drawn_clusters(len(names), seed)]
    low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5])
    return value, float(low), float(high)


def right(margins: Sequence[float]) -> list[float]:
    """1 where a margin is positive, 0.5 where it is exactly 0, else 0."""
    return [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins]
