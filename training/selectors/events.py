"""A run's events after a cursor, for whoever polls; and how fast a run goes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.utils import timezone

from training.models import Round, Run, RunEvent

#: Events one answer carries at most; the next poll goes on from its cursor.
PAGE = 200
#: Progress events over which the pace is measured: the recent ones, since a phase changes it.
RECENT = 20


@dataclass(frozen=True)
class Cursor:
    """The last event somebody has seen. A later run starts from its own first event."""

    run: int
    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.run}.{self.attempt}.{self.seq}"


def read_cursor(text: str) -> Cursor | None:
    """The cursor of `RUN.ATTEMPT.SEQ`; None for anything else, which means: from the start."""
    parts = text.split(".")
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and len(p) <= 12 for p in parts):
        return None
    return Cursor(*map(int, parts))


@dataclass(frozen=True)
class EventPage:
    """Events in order, the cursor to ask with next, and whether more are there already."""

    run: Run | None
    events: list[RunEvent]
    cursor: Cursor | None
    more: bool


def newest_run(round: Round) -> Run | None:
    return round.runs.order_by("-pk").first()


def last_cursor(round: Round) -> Cursor | None:
    """Where the newest run's events end at the moment: what a fresh page has shown."""
    run = newest_run(round)
    if run is None:
        return None
    last = run.events.order_by("-attempt", "-seq").values_list("attempt", "seq").first()
    return Cursor(run.pk, *last) if last else None


def events_after(round: Round, cursor: Cursor | None, *, limit: int = PAGE) -> EventPage:
    """The events of the round's newest run that come after the cursor."""
    run = newest_run(round)
    if run is None:
        return EventPage(None, [], None, False)
    if cursor is not None and cursor.run != run.pk:
        cursor = None
    events = run.events.all()
    if cursor is not None:
        events = events.filter(
            Q(attempt__gt=cursor.attempt) | Q(attempt=cursor.attempt, seq__gt=cursor.seq)
        )
    found = list(events[: limit + 1])
    page = found[:limit]
    if page:
        cursor = Cursor(run.pk, page[-1].attempt, page[-1].seq)
    return EventPage(run, page, cursor, len(found) > limit)


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
