"""What became of the pushes of a workspace's snapshots and versions."""

from __future__ import annotations

from training.models import Job

#: What a push job's payload calls the thing it pushes.
THING = {Job.Kind.PUSH_SNAPSHOT: "snapshot", Job.Kind.PUSH_MODEL: "version"}


def last_pushes(*, workspace_id: int, kind: str) -> dict[int, Job]:
    """The newest push of each snapshot (or version), by its id, in one query."""
    jobs = Job.objects.filter(workspace=workspace_id, kind=kind).order_by("pk")
    return {job.payload[THING[Job.Kind(kind)]]: job for job in jobs}
