"""A progress bar per stage: one rewritten line on a terminal, a few plain lines in a log."""

from __future__ import annotations

import time
from typing import TextIO

WIDTH = 28
#: In a log (no terminal) a stage reports each time it has passed another such share.
LOG_EVERY = 0.25


class Bars:
    """`show(stage, done, total)` as often as you like; a new stage starts a new line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._stage = ""
        self._started = 0.0
        self._logged = -1.0

    def show(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self.close()
            self._stage, self._started, self._logged = stage, time.monotonic(), -1.0
        share = done / total if total else 0.0
        if self._live:
            self._out.write("\r" + self._line(done, total, share) + "\x1b[K")
            self._out.flush()
        elif share >= self._logged + LOG_EVERY or (share == 1.0 and self._logged < 1.0):
            self._logged = share
            self._out.write(self._line(done, total, share) + "\n")
            self._out.flush()

    def close(self) -> None:
        """Leave the finished line standing."""
        if self._live and self._stage:
            self._out.write("\n")
        self._stage = ""

    def _line(self, done: int, total: int, share: float) -> str:
        spent_s = int(time.monotonic() - self._started)
        filled = round(share * WIDTH)
        count = f"{done}/{total}" if total else "starting"
        left = ""
        if 0.02 < share < 1.0:
            left = f", about {int(spent_s / share - spent_s)} s left"
        bar = "█" * filled + "░" * (WIDTH - filled)
        return f"{self._stage:<10} {bar} {count:>9}  {spent_s} s{left}"
