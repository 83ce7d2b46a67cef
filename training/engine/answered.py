"""Answers of a run on the disk, a block of questions at a time. Holds no torch.

A block is one write of answers.jsonl, flushed to the disk before the next is begun. Which questions
stand in a block follows from their order alone, so a run that goes on after a kill answers the same
blocks as one that never stopped, and ends with the same bytes. Seconds differ each time: they stand
in timings.jsonl beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.engine.files import cannot_write, write_file
from training.engine.rundir import Row, RunDir

ANSWERS, TIMINGS = "answers.jsonl", "timings.jsonl"


class Answered:
    """The answers so far, of all attempts at a run."""

    def __init__(self, run: RunDir, ids: Sequence[str], block: int) -> None:
        """ids: of the questions, in order. Takes over the whole blocks of earlier attempts."""
        self.path = run.attempt_path / ANSWERS
        self._timings = run.attempt_path / TIMINGS
        self._block = block
        kept: list[Row] = []
        seconds: dict[int, Row] = {}
        for path in sorted(run.path.glob(f"attempts/*/{ANSWERS}")):
            rows = whole_rows(path)
            same = [row["id"] == name for row, name in zip(rows, ids, strict=False)]
            count = same.index(False) if False in same else len(same)
            if count < len(ids):
                count -= count % block
            kept = max(kept, rows[:count], key=len)
            timings = whole_rows(path.with_name(TIMINGS))
            seconds |= {row["block"]: row for row in timings}
        self.rows = kept
        self.timings = [seconds[n] for n in sorted(seconds) if n * block < len(kept)]
        write_file(self.path, lines(kept))
        write_file(self._timings, lines(self.timings))

    def add(self, rows: Sequence[Row], seconds: float) -> None:
        """Append a block and wait until the disk has it. Raises OutOfSpaceError."""
        timing = {
            "block": len(self.rows) // self._block,
            "seconds": seconds,
            "answers": len(rows),
        }
        append(self._timings, [timing])
        append(self.path, rows)
        self.rows += rows
        self.timings.append(timing)


def lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def append(path: Path, rows: Sequence[Row]) -> None:
    try:
        with path.open("a", encoding="utf-8", newline="\n") as handle:
            handle.write(lines(rows))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


def whole_rows(path: Path) -> list[Any]:
    """The rows up to the first that a crash cut; none where there is no such file."""
    found: list[Any] = []
    if not path.is_file():
        return found
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found
