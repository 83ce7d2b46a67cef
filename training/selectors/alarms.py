"""Alarms that rang in runs, each once however many attempts repeat it, in words for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.models import Run, RunEvent


@dataclass(frozen=True)
class Rang:
    """One alarm of one run."""

    run: Run
    name: str
    step: int
    metric: str
    value: float | None
    threshold: float | None
    message: str
    remedy: str
    #: Whether it ended the run; then after how many steps the weights are that were kept.
    stopped: bool
    kept_step: int | None


def run_alarms(runs: Sequence[Run]) -> list[Rang]:
    """The alarms of these runs, in the order of the runs and of their steps."""
    named = {run.pk: run for run in runs}
    events = RunEvent.objects.filter(run__in=named, kind="alarm").order_by("run", "attempt", "seq")
    found: dict[tuple[int, str], Rang] = {}
    for event in events:
        alarm = rang(named[event.run_id], event.body)
        found.setdefault((event.run_id, alarm.name), alarm)
    return list(found.values())


def rang(run: Run, body: dict[str, Any]) -> Rang:
    """An event as its run's engine wrote it; a field that is not what it should be is left out."""
    stopped = (run.result or {}).get("stopped")
    ended = isinstance(stopped, dict) and stopped.get("name") == body.get("name")
    kept = stopped.get("kept_step") if ended and isinstance(stopped, dict) else None
    return Rang(
        run=run,
        name=str(body.get("name", "")),
        step=body["step"] if isinstance(body.get("step"), int) else 0,
        metric=str(body.get("metric", "")),
        value=number(body.get("value")),
        threshold=number(body.get("threshold")),
        message=str(body.get("message", "")),
        remedy=str(body.get("remedy", "")),
        stopped=ended,
        kept_step=kept if isinstance(kept, int) else None,
    )


def number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
