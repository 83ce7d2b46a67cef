"""How much memory a tree of processes really takes: the sum of their proportional set sizes."""

from __future__ import annotations

import threading
from typing import Self

import psutil

MB = 1024 * 1024


def summed_mb(process: psutil.Process) -> float:
    """Megabytes held by `process` and all its descendants.

    Shared pages count once in all (PSS) on Linux; elsewhere resident sizes are added up, so
    that they count once per process.
    """
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            info = member.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # it ended between the listing and the look
        total += getattr(info, "pss", info.rss)
    return total / MB


class MemoryWatch:
    """Samples this process tree once a second; keeps the highest sum under each stage's name."""

    def __init__(self, *, interval_s: float = 1.0) -> None:
        self._peaks_mb: dict[str, float] = {}
        self._stage = "start"
        self._interval_s = interval_s
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def enter_stage(self, name: str) -> None:
        """What is measured from now on counts towards `name`."""
        self._stage = name
        self._look()

    def peak_mb(self, stage: str) -> float:
        """The highest sum seen during `stage`, in megabytes; 0 where it was never entered."""
        return round(self._peaks_mb.get(stage, 0.0), 1)

    def _look(self) -> None:
        stage = self._stage
        self._peaks_mb[stage] = max(self._peaks_mb.get(stage, 0.0), summed_mb(self._process))

    def _watch(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._look()
