"""Why a job that has not ended stands where it stands, in sentences."""

from __future__ import annotations

from datetime import datetime

from django.db.models import Q, QuerySet
from django.utils import timezone

from training.models import DEVICE, Job, JobEvent
from training.selectors.queues import PATIENCE, SHARED


def waits_since(job: Job) -> datetime:
    """When a queued job came (back) to the queue."""
    returned = JobEvent.objects.filter(job=job, to_state=Job.State.QUEUED).order_by("-pk").first()
    return returned.at if returned is not None else job.created_at


def jobs_ahead(job: Job) -> int:
    """Queued jobs, of any workspace, that the same loop of a worker takes before this one."""
    earlier = Q(created_at__lt=job.created_at) | Q(created_at=job.created_at, pk__lt=job.pk)
    return beside(job).filter(earlier, state=Job.State.QUEUED).count()


def beside(job: Job) -> QuerySet[Job]:
    """The jobs that share this one's place in a worker, itself among them."""
    return Job.objects.filter(queue__in=SHARED[Job.Queue(job.queue)])


def why_it_waits(job: Job) -> list[str]:
    """What a queued or running job waits for; empty where it ended, or is simply at work."""
    if job.state == Job.State.QUEUED:
        return [*place_in_queue(job), *what_is_in_the_way(job)]
    if job.state == Job.State.LOST:
        return ["Its worker was lost; it goes back to the queue within seconds."]
    if job.state != Job.State.RUNNING:
        return []
    said = []
    if job.cancel_requested:
        said.append(
            "A person asked to cancel it. Its worker hears of that with its next sign of life and "
            "stops the engine within about ten seconds."
        )
    if job.lease_until is not None and job.lease_until < timezone.now():
        said.append(
            "Its worker has stopped giving signs of life. The next worker that looks takes the job "
            "back into the queue; if nothing happens, none is running (manage.py up)."
        )
    return said


def place_in_queue(job: Job) -> list[str]:
    ahead = jobs_ahead(job)
    if ahead == 0:
        return ["It is the next in its queue."]
    return [f"{ahead} job{'' if ahead == 1 else 's'} of its queue {'is' if ahead == 1 else 'are'} "
            "before it."]  # fmt: skip


def what_is_in_the_way(job: Job) -> list[str]:
    """Who is at work in the place that a queued job waits for, or that nobody is."""
    now = timezone.now()
    running = list(beside(job).filter(state=Job.State.RUNNING).select_related("run", "round"))
    alive = [other for other in running if other.lease_until and other.lease_until >= now]
    if alive:
        names = ", ".join(as_seen_from(job, other) for other in alive)
        what = "The device is" if job.queue in DEVICE else "The worker is"
        return [f"{what} busy with {names}; one job at a time."]
    if running:
        return ["The worker before it has stopped giving signs of life; another one is needed."]
    if now - waits_since(job) > PATIENCE:
        return ["No worker has taken it: is one running (manage.py up, or manage.py worker)?"]
    return ["A worker takes it within seconds."]


def as_seen_from(job: Job, other: Job) -> str:
    """Another workspace's job is named by nothing but its being there."""
    if other.workspace_id != job.workspace_id:
        return "a job of another workspace"
    what = other.run.get_method_display() if other.run else other.get_kind_display()
    of = f" of round {other.round.number}" if other.round else ""
    return f"job {other.pk} ({what}{of})"
