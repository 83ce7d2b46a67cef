"""Whether a model is as often right as it says: reliability curve and expected calibration error.

Guo et al. 2017 (arXiv 1706.04599), sections 2 and 5. Holds no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Bins of confidence of equal width, as in section 5 of the paper.
BINS = 15


def reliability(confidence: Sequence[float], right: Sequence[float]) -> list[dict[str, Any]]:
    """Rows by confidence, in `BINS` bins of equal width: (m − 1)/M up to and including m/M.

    confidence: probability of what was said, one per row. right: 1, 0, or 0.5 for a tie.
    """
    sure, hits = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    edges = np.linspace(0.0, 1.0, BINS + 1)
    bin_of = np.digitize(sure, edges[1:-1], right=True)
    found = []
    for number in range(BINS):
        own = bin_of == number
        some = bool(own.any())
        found.append(
            {
                "above": float(edges[number]),
                "to": float(edges[number + 1]),
                "rows": int(own.sum()),
                "confidence": float(sure[own].mean()) if some else None,
                "accuracy": float(hits[own].mean()) if some else None,
            }
        )
    return found


def calibration_error(bins: Sequence[dict[str, Any]]) -> float:
    """Expected calibration error: Σ rows/n · |accuracy − confidence| over the bins (equation 3).

    It has no interval here: resampled rows fill the bins less evenly, so that a bootstrap of it is
    biased upwards.
    """
    known = [each for each in bins if each["rows"]]
    n = sum(each["rows"] for each in known)
    return float(sum(b["rows"] * abs(b["accuracy"] - b["confidence"]) for b in known) / n)


def confidence_of(margin: float) -> float:
    """Probability that Bradley and Terry give to the side which a margin prefers: σ(|margin|)."""
    return 1.0 / (1.0 + math.exp(-abs(margin)))
