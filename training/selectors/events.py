"""A run's events from a cursor on, for whoever polls; and how fast a run goes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.utils import timezone

from training.models import Run, RunEvent

#: Progress events over which the pace is measured: the recent ones, since a phase changes it.
RECENT = 20


@dataclass(frozen=True)
class Cursor:
    """The place of one event: everything up to it has been read."""

    attempt: int = 0
    seq: int = 0

    def __str__(self) -> str:
        return f"{self.attempt}.{self.seq}"


def events_after(run: Run, cursor: Cursor, *, limit: int) -> tuple[list[RunEvent], bool]:
    """(the next events in order, whether more are there already)."""
    later = Q(attempt__gt=cursor.attempt) | Q(attempt=cursor.attempt, seq__gt=cursor.seq)
    found = list(run.events.filter(later).order_by("attempt", "seq")[: limit + 1])
    return found[:limit], len(found) > limit


def event_row(event: RunEvent) -> dict[str, Any]:
    """One event as JSON."""
    return {
        **event.body,
        "attempt": event.attempt,
        "seq": event.seq,
        "kind": event.kind,
        "at": event.at.isoformat(timespec="milliseconds"),
    }


@dataclass(frozen=True)
class RunPace:
    """How far a run is, how fast it goes, and how long the rest takes at that pace."""

    step: int
    total: int
    phase: str
    #: Seconds a step took lately; None before the second one.
    seconds_per_step: float | None
    left_s: float | None
    last_sign: datetime | None

    @property
    def quiet(self) -> bool:
        """Whether the last sign of life is older than ten steps took, and than a minute."""
        if self.last_sign is None:
            return False
        age = (timezone.now() - self.last_sign).total_seconds()
        return age > max(60.0, 10 * (self.seconds_per_step or 0.0))


def run_pace(run: Run) -> RunPace:
    """The pace of a run's newest attempt."""
    newest = run.events.order_by("-attempt", "-seq").first()
    if newest is None:
        return RunPace(0, 0, "", None, None, None)
    attempt = run.events.filter(attempt=newest.attempt).order_by("-seq")
    steps = list(attempt.filter(kind="progress")[:RECENT])
    phase = attempt.filter(kind="phase").first()
    name = str(phase.body.get("name", "")) if phase else ""
    if not steps:
        start = attempt.filter(kind="start").first()
        total = int(start.body.get("total_steps", 0)) if start else 0
        return RunPace(0, total, name, None, None, newest.at)
    last, first = steps[0], steps[-1]
    step, total = int(last.body.get("step", 0)), int(last.body.get("total_steps", 0))
    done = step - int(first.body.get("step", 0))
    each = (last.at - first.at).total_seconds() / done if done > 0 else None
    left = each * max(0, total - step) if each is not None else None
    return RunPace(step, total, name, each, left, newest.at)
