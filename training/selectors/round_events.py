"""The events of a round: those of its newest run, from a cursor on."""

from __future__ import annotations

from dataclasses import dataclass

from training.models import Round, Run, RunEvent
from training.selectors.events import Cursor, events_after

#: Events one answer carries at most; the next poll goes on from its cursor.
PAGE = 200


@dataclass(frozen=True)
class RoundCursor:
    """The last event somebody has seen. A later run starts from its own first event."""

    run: int
    place: Cursor

    def __str__(self) -> str:
        return f"{self.run}.{self.place}"


def read_cursor(text: str) -> RoundCursor | None:
    """The cursor of `RUN.ATTEMPT.SEQ`; None for anything else, which means: from the start."""
    parts = text.split(".")
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and len(p) <= 12 for p in parts):
        return None
    run, attempt, seq = map(int, parts)
    return RoundCursor(run, Cursor(attempt, seq))


@dataclass(frozen=True)
class EventPage:
    """Events in order, the cursor to ask with next, and whether more are there already."""

    run: Run | None
    events: list[RunEvent]
    cursor: RoundCursor | None
    more: bool


def newest_run(round: Round) -> Run | None:
    return round.runs.order_by("-pk").first()


def last_cursor(round: Round) -> RoundCursor | None:
    """Where the newest run's events end at the moment: what a fresh page has shown."""
    run = newest_run(round)
    if run is None:
        return None
    last = run.events.order_by("-attempt", "-seq").values_list("attempt", "seq").first()
    return RoundCursor(run.pk, Cursor(*last)) if last else None


def round_events_after(round: Round, cursor: RoundCursor | None, *, limit: int = PAGE) -> EventPage:
    """The events of the round's newest run that come after the cursor."""
    run = newest_run(round)
    if run is None:
        return EventPage(None, [], None, False)
    if cursor is not None and cursor.run != run.pk:
        cursor = None
    page, more = events_after(run, cursor.place if cursor else Cursor(), limit=limit)
    if page:
        cursor = RoundCursor(run.pk, Cursor(page[-1].attempt, page[-1].seq))
    return EventPage(run, page, cursor, more)
