"""Intervals for held-out figures: pairs of one prompt are not independent, so prompts are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000


def clustered_interval(
    values: Sequence[float], clusters: Sequence[str], *, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of `values` and its 95 % percentile interval under resampling of whole clusters.

    Cluster bootstrap (Field & Welsh 2007). values, clusters: one per row, the same length.
    Returns: (mean, low, high)
    """
    names, cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(cluster_of, weights=np.asarray(values, dtype=float), minlength=len(names))
    counts = np.bincount(cluster_of, minlength=len(names))
    draws = np.random.default_rng(seed).integers(0, len(names), size=(RESAMPLES, len(names)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def right(margins: Sequence[float]) -> list[float]:
    """1 where a margin is positive, 0.5 where it is exactly 0, else 0."""
    return [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins]
