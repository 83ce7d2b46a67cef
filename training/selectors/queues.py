"""Is anything stuck? Queues, leases and jobs that ended badly, each with the reason we know."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any, cast

from django.db.models import Count, Min, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from rlhf_platform.accounts.models import Workspace
from training.models import TAKING_TURNS, Job, JobAttempt, JobEvent
from training.selectors.reasons import Advice, advice

#: A queued job older than this with nobody at work is worth a sentence.
PATIENCE = timedelta(seconds=30)
#: Attempts of a queue over which its usual wait is told.
LATEST = 20
#: Jobs that ended badly are shown this long.
REMEMBERED = timedelta(days=7)
#: The queues that share a worker's loop with each: a job of one waits while another's runs.
SHARED = {queue: group for group in TAKING_TURNS for queue in group}

#: The row of a queue in which no job waits or runs.
NOTHING: dict[str, Any] = {"queued": 0, "oldest": None, "running": 0, "overdue": 0}


@dataclass(frozen=True)
class QueueState:
    """One queue of the workspace; `stuck` says why nothing moves, and is empty when it does."""

    #: One of Job.Queue.
    queue: str
    name: str
    queued: int
    oldest: datetime | None
    running: int
    overdue: int
    stuck: str
    #: When a worker last took a job from it; None where none ever did.
    last_taken: datetime | None
    #: Median seconds from launch to the first attempt, and over how many of the latest jobs.
    usual_wait_s: float | None
    waits: int


def queue_states(*, workspace: Workspace) -> list[QueueState]:
    """Depth, lag, running jobs and the usual wait of every queue.

    Whether a worker lives is only known by what it holds, so that is what the words say. The
    device is shared by all workspaces: another's job may be what ours wait for.
    """
    now = timezone.now()
    ours, running = Q(workspace=workspace), Q(state=Job.State.RUNNING)
    # A job that came back to the queue waits from then, not from when it was made.
    returned = JobEvent.objects.filter(job=OuterRef("pk"), to_state=Job.State.QUEUED)
    live = Job.objects.filter(state__in=[Job.State.QUEUED, Job.State.RUNNING]).annotate(
        since=Coalesce(Subquery(returned.order_by("-pk").values("at")[:1]), "created_at")
    )
    rows: dict[str, dict[str, Any]] = {
        row["queue"]: cast(dict[str, Any], row)
        for row in live.values("queue").annotate(
            queued=Count("pk", filter=ours & Q(state=Job.State.QUEUED)),
            oldest=Min("since", filter=ours & Q(state=Job.State.QUEUED)),
            running=Count("pk", filter=ours & running),
            overdue=Count("pk", filter=ours & running & Q(lease_until__lt=now)),
            beating=Count("pk", filter=running & Q(lease_until__gte=now)),
        )
    }
    beating: dict[str, int] = defaultdict(int, {n: row["beating"] for n, row in rows.items()})
    states = []
    for queue in Job.Queue:
        row = rows.get(queue, NOTHING)
        stuck = ""
        if row["overdue"]:
            stuck = "a running job's worker has stopped giving signs of life"
        elif (
            row["oldest"]
            and now - row["oldest"] > PATIENCE
            and not any(beating[name] for name in SHARED[queue])
        ):
            stuck = "jobs wait and no worker takes them: is one running (manage.py up)?"
        last_taken, waits = lately_taken(workspace, queue)
        states.append(
            QueueState(
                queue=queue,
                name=str(queue.label),
                queued=row["queued"],
                oldest=row["oldest"],
                running=row["running"],
                overdue=row["overdue"],
                stuck=stuck,
                last_taken=last_taken,
                usual_wait_s=median(waits) if waits else None,
                waits=len(waits),
            )
        )
    return states


def lately_taken(workspace: Workspace, queue: str) -> tuple[datetime | None, list[float]]:
    """(when a job was last taken, seconds that the latest ones waited for their first attempt)."""
    taken = JobAttempt.objects.filter(job__workspace=workspace, job__queue=queue)
    rows = taken.order_by("-pk").values_list("number", "started_at", "job__created_at")[:LATEST]
    found = list(rows)
    # The web's clock made one end and the database's the other: they may be a little apart.
    waits = [max(0.0, (taken - made).total_seconds()) for n, taken, made in found if n == 1]
    return (found[0][1] if found else None), waits


@dataclass(frozen=True)
class BadEnd:
    job: Job
    advice: Advice


def bad_ends(*, workspace: Workspace, limit: int = 10) -> list[BadEnd]:
    """Jobs that failed or were lost lately, the newest first."""
    found = jobs_of(workspace=workspace).filter(
        state__in=[Job.State.FAILED, Job.State.LOST],
        created_at__gte=timezone.now() - REMEMBERED,
    )
    return [BadEnd(job, advice(job.reason, kind=job.kind)) for job in found[:limit]]


def jobs_of(*, workspace: Workspace, state: str = "") -> QuerySet[Job]:
    """The workspace's jobs, the newest first, with what a list names of each."""
    found = Job.objects.filter(workspace=workspace).select_related("run", "round__project")
    if state:
        found = found.filter(state=state)
    return found.order_by("-pk")


def state_counts(*, workspace: Workspace) -> list[tuple[str, str, int]]:
    """(state, its word, how many) of the workspace's jobs."""
    counts = dict(
        Job.objects.filter(workspace=workspace).values_list("state").annotate(n=Count("pk"))
    )
    return [(str(state), str(state.label), counts.get(state, 0)) for state in Job.State]
