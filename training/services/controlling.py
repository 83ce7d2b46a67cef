"""What a person may do to one job of the queue: a job of a round moves with its round."""

from __future__ import annotations

from training.errors import IllegalTransition
from training.models import Job, Round
from training.services import queueing
from training.services.rounds import cancel_round, retry_round


def cancel_job(*, job: Job) -> None:
    """Stop a job; the round it belongs to stops with it. Raises IllegalTransition if it ended."""
    if job.state in queueing.FINAL:
        raise IllegalTransition(f"job {job.pk} has ended already ({job.get_state_display()})")
    if job.round is not None:
        cancel_round(round=job.round)
    else:
        queueing.request_cancel(job=job)


def may_cancel(job: Job) -> bool:
    """Whether `cancel_job` would do something that was not asked for already."""
    return job.state not in queueing.FINAL and not job.cancel_requested


def may_retry(job: Job) -> bool:
    """Whether `retry_job` would queue it again."""
    if job.state not in (Job.State.FAILED, Job.State.CANCELLED):
        return False
    if job.round is None:
        return True
    return is_newest_of_its_round(job) and job.round.state in (
        Round.State.FAILED,
        Round.State.CANCELLED,
    )


def is_newest_of_its_round(job: Job) -> bool:
    """Whether the round stands where this job left it."""
    return not Job.objects.filter(round=job.round, pk__gt=job.pk).exists()


def retry_job(*, job: Job) -> None:
    """Queue an ended job again, and its round with it.

    Raises IllegalTransition for a job that did not fail, or whose round went on without it.
    """
    if job.round is None:
        queueing.retry(job=job)
        return
    if not is_newest_of_its_round(job):
        raise IllegalTransition(f"job {job.pk} is not the stage at which its round stopped")
    if job.state not in (Job.State.FAILED, Job.State.CANCELLED):
        raise IllegalTransition(
            f"job {job.pk} is {job.get_state_display().lower()}; retry the round"
        )
    retry_round(round=job.round)
