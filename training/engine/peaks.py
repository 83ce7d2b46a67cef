"""The highest memory of this process."""

from __future__ import annotations

import resource
import sys


def peak_mb() -> float:
    """Highest memory of this run in MB: the device's where there is one, else resident memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
