"""The workers that were seen. An idle one leaves no trace in the table, and is not shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from rlhf_platform.accounts.models import Workspace
from training.models import JobAttempt

#: Idle workers that are shown: one that is started again and again would fill the page.
IDLE_SHOWN = 8
#: How long after its last attempt a worker is still shown.
REMEMBERED = timedelta(hours=1)


@dataclass(frozen=True)
class WorkerSeen:
    """One worker by what it holds now, or held last."""

    name: str
    #: The job at which it works, where that is one of this workspace.
    job: int | None
    #: Whether it holds a claim, whosever job that is.
    busy: bool
    #: Since when it works, or when it ended its last attempt.
    since: datetime
    #: Until when its claim holds without another sign of life; None for an idle one.
    lease_until: datetime | None

    @property
    def overdue(self) -> bool:
        return self.lease_until is not None and self.lease_until < timezone.now()


def workers_seen(*, workspace: Workspace) -> list[WorkerSeen]:
    """Workers with a claim, and those that ended one within the last hour; the busy ones first."""
    since = timezone.now() - REMEMBERED
    rows = JobAttempt.objects.filter(worker__gt="").select_related("job")
    found: dict[str, WorkerSeen] = {}
    for row in rows.filter(ended_at=None).order_by("started_at"):
        ours = row.job.pk if row.job.workspace_id == workspace.pk else None
        # One process works at the device and beside it; each claim is a line of its own.
        found[f"{row.worker} {row.pk}"] = WorkerSeen(
            row.worker, ours, True, row.started_at, row.job.lease_until
        )
    busy = {worker.name for worker in found.values()}
    idle: dict[str, WorkerSeen] = {}
    for row in rows.filter(ended_at__gte=since).order_by("-ended_at"):
        if row.worker not in busy and row.worker not in idle and row.ended_at is not None:
            idle[row.worker] = WorkerSeen(row.worker, None, False, row.ended_at, None)
    at_work = sorted(found.values(), key=lambda worker: worker.name)
    return [*at_work, *list(idle.values())[:IDLE_SHOWN]]
