"""Reading back what an engine wrote. It may be cut, huge, or nothing that a database can hold."""

from __future__ import annotations

import json
import logging
import math
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from django.db.models import Max

from training.models import JobAttempt, RunCheckpoint, RunEvent, RunMetric
from training.services import queueing
from training.services.queueing import Claim

log = logging.getLogger(__name__)

#: Bytes of events.jsonl that are in memory at once; a longer line is no event.
PIECE_BYTES = 4_000_000
#: What the columns of events and metrics hold.
MAX_INTEGER, MAX_KIND, MAX_NAME, MAX_PATH = 2**31 - 1, 20, 60, 200


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
    """Copies the events of one attempt from its file to the database, while the job is ours.

    The file is the spool: what the database does not take stays in it. Forwarding twice stores
    once. Raises LostLease, storing nothing, where the token is no longer the job's.
    """

    def __init__(self, claim: Claim, attempt: int, folder: Path, *, known: int = -1) -> None:
        """`known` is the highest number of an event of this attempt that is stored already."""
        assert claim.job.run is not None  # noqa: S101 - only runs have events
        self._claim, self._run_id, self._attempt = claim, claim.job.run.pk, attempt
        self._path = folder / "events.jsonl"
        self._known = known
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
        self._store([event for event in events if event and event.seq > self._known])
        self._offset += end
        return True

    def _store(self, events: list[RunEvent]) -> None:
        points = {key: value for event in events for key, value in points_of(event).items()}
        with queueing.fenced(claim=self._claim):
            RunEvent.objects.bulk_create(events, ignore_conflicts=True)
            RunMetric.objects.bulk_create(
                [
                    RunMetric(
                        run_id=self._run_id,
                        name=name,
                        step=step,
                        value=value,
                        attempt=self._attempt,
                    )
                    for (name, step), value in points.items()
                ],
                update_conflicts=True,
                unique_fields=["run", "name", "step"],
                update_fields=["value", "attempt"],
            )
            self._store_checkpoints([event for event in events if event.kind == "checkpoint"])
            for event in events:
                if event.kind == "checkpoint_removed":
                    RunCheckpoint.objects.filter(
                        run=self._run_id, path=str(event.body.get("path")), removed_at=None
                    ).update(removed_at=event.at)

    def _store_checkpoints(self, events: list[RunEvent]) -> None:
        """The rows that make checkpoints known; one further on takes back the job's strikes."""
        found = [row for event in events if (row := checkpoint_of(event)) is not None]
        if not found:
            return
        earlier = RunCheckpoint.objects.filter(run=self._run_id).aggregate(step=Max("step"))["step"]
        RunCheckpoint.objects.bulk_create(found, ignore_conflicts=True)
        if max(row.step for row in found) > (earlier or 0):
            queueing.got_further(claim=self._claim)

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
            log.warning("%s: a line is no event (%s): %s", self._path, error, shown)
            return None
        return RunEvent(
            run_id=self._run_id,
            attempt=self._attempt,
            seq=seq,
            kind=kind,
            at=moment,
            body=body,
        )


def checkpoint_of(event: RunEvent) -> RunCheckpoint | None:
    """The row of a checkpoint event; None where it names no folder inside its run."""
    path, step = event.body.get("path"), event.body.get("step")
    if not isinstance(path, str) or not is_count(step):
        return None
    parts = PurePosixPath(path).parts
    if parts[:1] != ("attempts",) or ".." in parts or len(path) > MAX_PATH:
        return None
    size, sha256 = event.body.get("bytes"), event.body.get("sha256")
    return RunCheckpoint(
        run_id=event.run_id,
        attempt=event.attempt,
        step=step,
        path=path,
        sha256=sha256[:64] if isinstance(sha256, str) else "",
        size_bytes=size if type(size) is int and size >= 0 else 0,
        created_at=event.at,
    )


def replay_earlier(*, claim: Claim, folder: Path) -> None:
    """Store what earlier attempts wrote and could not forward: their worker died, say.

    Only attempts from the newest that stored anything on: what an older one left came before it
    and is stored, or is no longer wanted. Raises LostLease.
    """
    run_id = claim.job.run_id
    stored = RunEvent.objects.filter(run=run_id).aggregate(newest=Max("attempt"))["newest"] or 1
    attempts = JobAttempt.objects.filter(
        job=claim.job, number__gte=stored, number__lt=claim.attempt
    )
    for attempt in attempts:
        known = RunEvent.objects.filter(run=run_id, attempt=attempt.number).aggregate(Max("seq"))
        last = known["seq__max"]
        Forwarder(
            claim,
            attempt.number,
            folder / "attempts" / attempt.token.hex,
            known=-1 if last is None else last,
        ).forward()


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
