"""What happened to a job and its run: transitions, attempts, phases, samples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from training.models import Job, Run, RunEvent
from training.selectors.logs import AttemptFiles, attempt_files
from training.selectors.reasons import advice
from training.selectors.watching import Shown, shown

#: Samples a run's page shows, the newest first.
SAMPLES = 6


@dataclass(frozen=True)
class Transition:
    """One line of a job's history in words."""

    at: datetime
    attempt: int
    what: str
    why: str
    detail: str


WORDS = {
    ("queued", "running"): "a worker took it",
    ("running", "succeeded"): "done",
    ("running", "failed"): "failed",
    ("running", "cancelled"): "cancelled",
    ("running", "lost"): "ended before it was done",
    ("lost", "queued"): "back in the queue",
    ("lost", "failed"): "given up",
    ("failed", "queued"): "queued again",
    ("cancelled", "queued"): "queued again",
    ("queued", "cancelled"): "cancelled before it began",
}


def job_history(job: Job) -> list[Transition]:
    found = []
    for event in job.events.order_by("pk"):
        change = (event.from_state, event.to_state)
        # Why it was lost stands one line above.
        again = change == ("lost", "queued")
        found.append(
            Transition(
                at=event.at,
                attempt=event.attempt,
                what=WORDS.get(change, f"{event.from_state} → {event.to_state}"),
                why="" if again else meaning(event.reason, job),
                detail="" if again else event.detail,
            )
        )
    return found


def meaning(reason: str, job: Job) -> str:
    """A reason in words; nothing for what a person did."""
    return advice(reason, kind=job.kind).meaning if reason not in ("", "retry") else ""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a job in words, with what it left in its folder."""

    number: int
    worker: str
    started_at: datetime
    #: Seconds; of the one at work, until now.
    lasted_s: float
    #: How it ended in a word; empty while it runs.
    outcome: str
    why: str
    detail: str
    log: str
    traceback: str


def job_attempts(job: Job) -> list[Attempt]:
    """The attempts at a job, the newest first, with the ends of their logs."""
    found = []
    for row in job.attempt_rows.order_by("-number"):
        ended = row.ended_at or timezone.now()
        files = attempt_files(job.run, row.token.hex) if job.run else AttemptFiles()
        found.append(
            Attempt(
                number=row.number,
                worker=row.worker,
                started_at=row.started_at,
                lasted_s=max(0.0, (ended - row.started_at).total_seconds()),
                outcome="Interrupted" if row.reason == "preempted" else row.get_outcome_display(),
                why=meaning(row.reason, job),
                detail=row.detail,
                log=files.log,
                traceback=files.traceback,
            )
        )
    return found


def run_samples(run: Run) -> list[Shown]:
    events = RunEvent.objects.filter(run=run, kind="sample").order_by("-attempt", "-seq")[:SAMPLES]
    return [shown(event, run.round) for event in events]


def phases(run: Run) -> list[RunEvent]:
    """The phases, checkpoints and restarts of the newest attempt, in order."""
    newest = run.events.order_by("-attempt").values_list("attempt", flat=True).first()
    kinds = ["start", "phase", "checkpoint", "resumed", "end"]
    return list(run.events.filter(attempt=newest, kind__in=kinds)) if newest else []


@dataclass(frozen=True)
class Difference:
    """One setting that differs from the last run of the same method in the project."""

    name: str
    before: str
    now: str


def flat(config: object, prefix: str = "") -> dict[str, str]:
    """A config as dotted names and JSON values."""
    if not isinstance(config, dict):
        return {prefix.rstrip("."): json.dumps(config)}
    found: dict[str, str] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.")
    return found


#: Settings that differ in every run and tell nothing.
EXPECTED = ("init_from", "seed", "_adapter")


def config_differences(run: Run) -> tuple[Run | None, list[Difference]]:
    """(the earlier run of this method in the project, what is set differently now)."""
    if run.round is None:
        return None, []
    earlier = (
        Run.objects.filter(
            round__project=run.round.project_id, method=run.method, stage=run.stage, pk__lt=run.pk
        )
        .select_related("round")
        .order_by("-pk")
        .first()
    )
    if earlier is None:
        return None, []
    before, now = flat(earlier.config), flat(run.config)
    return earlier, [
        Difference(name, before.get(name, "–"), now.get(name, "–"))
        for name in sorted(before | now)
        if before.get(name) != now.get(name) and not name.endswith(EXPECTED)
    ]
