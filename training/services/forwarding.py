"""Reading back what an engine wrote. It may be cut, huge, or nothing that a database can hold."""

from __future__ import annotations

import json
import logging
import math
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import transaction

from training.models import Run, RunEvent, RunMetric

log = logging.getLogger(__name__)

#: Bytes of events.jsonl that are in memory at once; a longer line is no event.
PIECE_BYTES = 4_000_000
#: What the columns of events and metrics hold.
MAX_INTEGER, MAX_KIND, MAX_NAME = 2**31 - 1, 20, 60


def storable(value: Any) -> Any:
    """The value as both databases hold it. A NUL stays visible; NaN and infinity become null."""
    if isinstance(value, dict):
        return {storable(key): storable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [storable(inner) for inner in value]
    if isinstance(value, str):
        text = value.replace("\x00", "\N{SYMBOL FOR NULL}")
        return text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no text
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_result(folder: Path) -> dict[str, Any] | None:
    """What the engine left at its end; None before that. What is no result is a failed one."""
    try:
        result = json.loads((folder / "result.json").read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        result = None
    if not isinstance(result, dict) or "status" not in result:
        return {
            "status": "failed",
            "reason": "its result.json cannot be read; the disk may have been full. Try again",
        }
    found: dict[str, Any] = storable(result)
    return found


class Forwarder:
    """Copies events from a child's file to the database; forwarding twice stores once."""

    def __init__(self, run: Run, attempt: int, path: Path) -> None:
        self._run, self._attempt, self._path = run, attempt, path
        self._offset = 0

    def forward(self) -> None:
        """Store every complete new line. The offset moves only after the rows are safe."""
        while self._forward_piece():
            pass

    def _forward_piece(self) -> bool:
        """Store the lines of one piece of the file; False where no whole line was left."""
        if not self._path.exists():
            return False
        with self._path.open("rb") as handle:
            handle.seek(self._offset)
            piece = handle.read(PIECE_BYTES)
        end = piece.rfind(b"\n") + 1
        if not end and len(piece) == PIECE_BYTES:
            end = len(piece)  # given up: its parts are no events either
        if not end:
            return False
        events = [self._event(line) for line in piece[:end].split(b"\n") if line]
        self._store([event for event in events if event is not None])
        self._offset += end
        return True

    def _store(self, events: list[RunEvent]) -> None:
        points = {key: value for event in events for key, value in points_of(event).items()}
        with transaction.atomic():
            RunEvent.objects.bulk_create(events, ignore_conflicts=True)
            RunMetric.objects.bulk_create(
                [
                    RunMetric(
                        run=self._run, name=name, step=step, value=value, attempt=self._attempt
                    )
                    for (name, step), value in points.items()
                ],
                update_conflicts=True,
                unique_fields=["run", "name", "step"],
                update_fields=["value", "attempt"],
            )

    def _event(self, line: bytes) -> RunEvent | None:
        """A line as a row; None, with a word in the log, for what is no event."""
        try:
            body = storable(json.loads(line))
            seq, kind, at = (body.pop(name) for name in ("seq", "kind", "at"))
            moment = datetime.fromisoformat(at)
            if not is_count(seq) or len(kind) > MAX_KIND or moment.tzinfo is None:
                raise ValueError("a field is out of range")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            shown = ascii(line[:80])
            log.warning("%s: a line of its events is no event (%s): %s", self._run, error, shown)
            return None
        return RunEvent(
            run=self._run, attempt=self._attempt, seq=seq, kind=kind, at=moment, body=body
        )


def is_count(value: object) -> bool:
    """Whether a value is a whole number that the database's columns hold."""
    return type(value) is int and 0 <= value <= MAX_INTEGER


def points_of(event: RunEvent) -> dict[tuple[str, int], float]:
    """The points of curves that a metrics event holds, by name and step."""
    values, step = event.body.get("values"), event.body.get("step")
    if event.kind != "metrics" or not isinstance(values, dict) or not is_count(step):
        return {}
    return {
        (name, step): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and len(name) <= MAX_NAME
    }
