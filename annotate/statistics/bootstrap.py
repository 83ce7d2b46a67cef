"""Bootstrap intervals of statistics whose observations come in clusters.

Davison & Hinkley 1997, section 3.8. Observations of one cluster (the comparisons of one prompt)
resemble one another, so clusters are drawn and not observations; drawing observations would give
intervals that are too narrow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from annotate.statistics.intervals import Interval


def cluster_draws(n_clusters: int, draws: int, seed: int) -> NDArray[np.int64]:
    """How often each cluster is drawn in each bootstrap sample of clusters: (draws, n_clusters)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=draws)


def percentile_interval(values: NDArray[np.float64], level: float = 0.95) -> Interval | None:
    """The middle `level` of bootstrap values; `None` where more than one in ten is undefined.

    A sample in which the statistic does not exist (NaN) is no evidence of where it lies; where such
    samples are common, an interval of the others would claim too much.
    """
    defined = values[~np.isnan(values)]
    if len(values) == 0 or len(defined) < 0.9 * len(values):
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high))
