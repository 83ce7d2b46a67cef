"""What a figure depends on beside the code: an idle machine, its peak, the memory that was used."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from statistics import median

import psutil

#: A processor busier than this before the start belongs to somebody else's work.
BUSY_PERCENT = 15.0
#: Side of the square matrices whose product gives the machine's peak.
SIDE = 2048


def require_idle() -> None:
    """Exit unless the machine is idle: a ratio measured beside other work is worth nothing."""
    busy = psutil.cpu_percent(interval=3.0)
    if busy > BUSY_PERCENT:
        others = [process for process in psutil.process_iter(["name"]) if process.info["name"]]
        for process in others:
            process.cpu_percent()
        psutil.cpu_percent(interval=1.0)
        top = max(others, key=lambda process: process.cpu_percent() if process.is_running() else 0)
        sys.exit(
            f"bench: the processors are {busy:.0f} % busy (bound {BUSY_PERCENT:.0f} %), most of "
            f"it by {top.info['name']} ({top.pid}); end that and start again"
        )


def matrix_peak(threads: int) -> float:
    """FLOP/s of large fp32 matrix products, the median of ten by the faster kernel."""
    import torch

    from training.engine.products import times

    torch.set_num_threads(threads)
    left, right = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)

    def seconds(product: Callable[[], object]) -> float:
        taken = []
        for _ in range(12):
            started = time.perf_counter()
            product()
            taken.append(time.perf_counter() - started)
        return median(taken[2:])

    fastest = min(seconds(lambda: left @ right), seconds(lambda: times(left, right)))
    return float(2 * SIDE**3 / fastest)


def peak_mb() -> float:
    """Highest resident memory of this process (MB)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
