"""Intervals for shares."""

from __future__ import annotations

import math

#: The 97.5 % point of the standard normal distribution.
Z = 1.959963984540054


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927, equation 1); (0, 1) where nothing was seen."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a share")
    if n == 0:
        return 0.0, 1.0
    share, z2 = successes / n, Z * Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends the two terms cancel but for rounding; the bound is then exactly the end.
    return 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half
