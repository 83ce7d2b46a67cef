"""What this process holds in memory, and held at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

#: Resident memory at the end of the imports of the run at hand, in MB; empty before.
_after_imports: list[float] = []


def peak_mb() -> float:
    """The highest of this run in MB: the device's where there is one, else resident memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resident_peak_mb()


def resident_peak_mb() -> float:
    """The highest resident memory of this process since it began, in MB.

    From the kernel's own count of this program, where it has one: `getrusage` starts at what the
    process was before it became this program.
    """
    found = status_mb("VmHWM")
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def status_mb(name: str) -> float | None:
    """A line of /proc/self/status in MB; None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(x for x in lines if x.startswith(f"{name}:")).split()[1]) / 1024
    except (OSError, StopIteration, ValueError):
        return None


def begin_run() -> None:
    """Forget what was noted of an earlier run in this process."""
    _after_imports.clear()


def note_imports() -> None:
    """Libraries and tokenizer are there, the weights are not. The first time counts."""
    held = status_mb("VmRSS")
    if held is not None and not _after_imports:
        _after_imports.append(held)


def imports_mb() -> float | None:
    """What `note_imports` saw; None where nothing did, and on a GPU, whose peak has none of it."""
    import torch

    return _after_imports[0] if _after_imports and not torch.cuda.is_available() else None
