"""Intervals for shares. Plain Python, so that a page can show one without loading numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Two-sided 95 % of the normal distribution.
Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


def wilson(successes: int, n: int, z: float = Z_95) -> Interval:
    """Wilson's score interval of a share (Wilson 1927); (0, 1) where nothing was observed."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a share")
    if n == 0:
        return Interval(0.0, 1.0)
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the two terms cancel but for rounding; the bound is then exactly the end.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(low, high)
