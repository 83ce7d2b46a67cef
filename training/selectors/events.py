"""A run's events from a cursor on, and its metrics as curves; for whoever polls."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import Q

from training.engine.metrics import METRICS
from training.models import Run, RunEvent


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


@dataclass(frozen=True)
class Series:
    """One metric; a value that is no finite number is None."""

    name: str
    meaning: str
    points: list[tuple[int, float | None]]


def run_series(run: Run, *, name: str = "") -> list[Series]:
    rows = run.metrics.order_by("name", "step")
    if name:
        rows = rows.filter(name=name)
    points: dict[str, list[tuple[int, float | None]]] = defaultdict(list)
    for metric, step, value in rows.values_list("name", "step", "value"):
        points[metric].append((step, value if math.isfinite(value) else None))
    return [Series(metric, METRICS.get(metric, ""), found) for metric, found in points.items()]


def without_our_paths(value: Any) -> Any:
    """A run's config or result with the paths of our own run folders made relative."""
    if isinstance(value, dict):
        return {key: without_our_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_our_paths(inner) for inner in value]
    if isinstance(value, str):
        return value.replace(f"{Path(settings.RUNS_DIR)}/", "")
    return value
