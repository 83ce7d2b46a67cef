"""The queue's state machine: one table, one function, every write conditional on the token.

queued → running → succeeded | failed | cancelled
         running → lost → queued            queued → cancelled, failed → queued (a person's retry)
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, Q
from django.db.models.functions import Now

from rlhf_platform.accounts.models import Workspace
from training.errors import IllegalTransition, LostLease
from training.models import Job, JobAttempt, JobEvent, Round, Run
from training.services.sending import Sender

log = logging.getLogger(__name__)

State = Job.State
TRANSITIONS: dict[str, frozenset[str]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.LOST}),
    State.LOST: frozenset({State.QUEUED, State.FAILED, State.CANCELLED}),
    State.FAILED: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset({State.QUEUED}),
    State.SUCCEEDED: frozenset(),
}
FINAL = (State.SUCCEEDED, State.FAILED, State.CANCELLED)
#: A queued job older than this is announced again.
RESEND_AFTER = timedelta(seconds=2)
#: … but not more often than this.
RESEND_EVERY = timedelta(seconds=10)
SENDER = Sender()


def clock() -> float:
    """Seconds that also pass while the machine sleeps, where the system counts those."""
    number = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(number)


@dataclass(frozen=True)
class Claim:
    """The right to work on a job: every write names the token, which a later claim replaces."""

    job: Job
    token: uuid.UUID
    attempt: int
    #: By `clock`, before the database was asked: the lease lasts from then.
    asked_at: float


def in_future(seconds: float) -> ExpressionWrapper:
    """That many seconds from now by the database's clock, which all workers share."""
    return ExpressionWrapper(
        Now() + timedelta(seconds=seconds),
        output_field=DateTimeField(),
    )


def transition(
    job_id: int,
    *,
    from_state: str,
    to: str,
    held: uuid.UUID | None = None,
    reason: str = "",
    detail: str = "",
    **changes: Any,
) -> bool:
    """Move a job from one state to another if it is still there (and `held` its token).

    One conditional UPDATE and one event row in a transaction; False where somebody was faster.
    Raises IllegalTransition for a move the table does not have.
    """
    if to not in TRANSITIONS[from_state]:
        raise IllegalTransition(f"a job cannot go from {from_state} to {to}")
    with transaction.atomic():
        jobs = Job.objects.filter(pk=job_id, state=from_state)
        if held is not None:
            jobs = jobs.filter(token=held)
        if to != State.RUNNING:
            changes |= {"token": None, "lease_until": None}
        if to in FINAL:
            changes["finished_at"] = Now()
        if not jobs.update(state=to, reason=reason, detail=detail, **changes):
            return False
        attempt = Job.objects.values_list("attempts", flat=True).get(pk=job_id)
        if from_state == State.RUNNING:
            JobAttempt.objects.filter(job=job_id, number=attempt).update(
                ended_at=Now(), outcome=to, reason=reason, detail=detail
            )
        JobEvent.objects.create(
            job_id=job_id,
            from_state=from_state,
            to_state=to,
            attempt=attempt,
            reason=reason,
            detail=detail,
        )
    return True


def lock_round(round_id: int | None) -> None:
    """Whoever changes a round and a job of it locks the round first: no two wait for each other."""
    if round_id is not None:
        Round.objects.select_for_update().get(pk=round_id)


def lock_if_overdue(job: Job) -> bool:
    """Lock a job, after its round, if its lease is over and nobody else holds either lock.

    A worker that was paused within a transaction keeps its locks: a reaper that waited for them
    would leave every other lost job where it is.
    """
    if job.round_id is not None:
        free = Round.objects.select_for_update(skip_locked=True).filter(pk=job.round_id)
        if free.first() is None:
            return False
    # Asked again under the lock: its worker may have come back since the look at the table.
    overdue = Job.objects.filter(pk=job.pk, state=State.RUNNING, lease_until__lt=Now())
    locked = overdue.select_for_update(skip_locked=True, no_key=True)
    return locked.values_list("pk", flat=True).first() is not None


def enqueue(
    *,
    kind: str,
    queue: str,
    workspace: Workspace,
    run: Run | None = None,
    round: Round | None = None,
    payload: dict[str, Any] | None = None,
) -> Job:
    """A queued job in the caller's transaction; workers are woken once that commits."""
    job = Job.objects.create(
        workspace=workspace, kind=kind, queue=queue, run=run, round=round, payload=payload or {}
    )
    transaction.on_commit(lambda: notify(job_id=job.pk, queue=job.queue))
    return job


def notify(*, job_id: int, queue: str) -> bool:
    """Send the wake-up; whether the broker is known to have it.

    One that is away is logged: the worker polls the table anyway.
    """
    from training.actors import WAKE

    try:
        SENDER.send(lambda: WAKE[queue].send(job_id))
    except Exception:  # a broker client raises what its library likes; none of it may undo a launch
        log.warning("the broker did not take the wake-up for job %s", job_id, exc_info=True)
        return False
    Job.objects.filter(pk=job_id).update(notified_at=Now())
    return True


def claim_next(*, queues: Sequence[str]) -> Claim | None:
    """Claim the oldest waiting job of these queues under a fresh token, or None."""
    waiting = Job.objects.filter(state=State.QUEUED, queue__in=queues).order_by("created_at", "pk")
    for job_id in waiting.values_list("pk", flat=True)[:10]:
        claimed = claim(job_id=job_id)
        if claimed is not None:
            return claimed
    return None


def claim(*, job_id: int) -> Claim | None:
    """Claim one job if it is still waiting; of any number of claimants one succeeds."""
    token, asked_at = uuid.uuid4(), clock()
    with transaction.atomic():
        taken = transition(
            job_id,
            from_state=State.QUEUED,
            to=State.RUNNING,
            token=token,
            lease_until=in_future(settings.JOB_LEASE_S),
            attempts=F("attempts") + 1,
            started_at=Now(),
            finished_at=None,
        )
        if not taken:
            return None
        job = Job.objects.select_related("run", "workspace").get(pk=job_id)
        JobAttempt.objects.create(
            job=job, number=job.attempts, token=token, worker=worker_name(), started_at=Now()
        )
    return Claim(job, token, job.attempts, asked_at)


def worker_name() -> str:
    """The machine and process that this is, for the history of attempts."""
    return f"{socket.gethostname()}:{os.getpid()}"[:120]


@contextmanager
def fenced(*, claim: Claim) -> Iterator[None]:
    """A transaction that holds only while the job is ours, for every write a worker makes.

    The job's row stays locked to its end, so no other claim comes in between. Raises LostLease
    before the block where the token is no longer the job's.
    """
    with transaction.atomic():
        mine = Job.objects.select_for_update(no_key=True).filter(
            pk=claim.job.pk, state=State.RUNNING, token=claim.token
        )
        if mine.values_list("pk", flat=True).first() is None:
            raise LostLease(f"job {claim.job.pk} is no longer ours")
        yield


def heartbeat(*, claim: Claim) -> bool:
    """Extend the lease. Returns whether a person asked to cancel; raises LostLease."""
    mine = Job.objects.filter(pk=claim.job.pk, state=State.RUNNING, token=claim.token)
    if not mine.update(lease_until=in_future(settings.JOB_LEASE_S)):
        raise LostLease(f"job {claim.job.pk} is no longer ours")
    return bool(mine.values_list("cancel_requested", flat=True).first())


def finish(
    *,
    claim: Claim,
    to: str,
    reason: str = "",
    detail: str = "",
    outcome: dict[str, Any] | None = None,
) -> None:
    """End a claim. Raises LostLease where the token is no longer the job's; nothing is written."""
    ended = transition(
        claim.job.pk,
        from_state=State.RUNNING,
        to=to,
        held=claim.token,
        reason=reason,
        detail=detail,
        outcome=outcome,
    )
    if not ended:
        raise LostLease(f"job {claim.job.pk} is no longer ours")


def give_back(*, claim: Claim, reason: str, detail: str, strikes: int = 0) -> None:
    """Return a running job to the queue. Raises LostLease.

    `strikes` is what this attempt adds to the count at which a job is given up: nothing where it
    was stopped from outside (preempted, interrupted).
    """
    with transaction.atomic():
        finish(claim=claim, to=State.LOST, reason=reason, detail=detail)
        Job.objects.filter(pk=claim.job.pk).update(strikes=F("strikes") + strikes)
        requeue(claim.job.pk, from_state=State.LOST, reason=reason, detail=detail)


def got_further(*, claim: Claim) -> None:
    """Forget the strikes of a job whose work advanced: what fails next is not the same failure."""
    Job.objects.filter(pk=claim.job.pk, strikes__gt=0).update(strikes=0)


def is_last_chance(job: Job) -> bool:
    """Whether one more strike gives the job up."""
    strikes = Job.objects.values_list("strikes", flat=True).get(pk=job.pk)
    return strikes + 1 >= job.max_strikes


def requeue(job_id: int, *, from_state: str, reason: str, detail: str) -> bool:
    """Put a job back in the queue and wake the workers once that commits.

    A cancel that was asked for stays asked for: whoever claims the job next obeys it.
    """
    moved = transition(
        job_id,
        from_state=from_state,
        to=State.QUEUED,
        reason=reason,
        detail=detail,
        finished_at=None,
    )
    queue = Job.objects.values_list("queue", flat=True).get(pk=job_id)
    if moved:
        transaction.on_commit(lambda: notify(job_id=job_id, queue=queue))
    return moved


def request_cancel(*, job: Job) -> None:
    """Cancel a waiting job now; ask the worker of a running one to stop it."""
    with transaction.atomic():
        # Locked: a job that is claimed, or lost and queued again, in between would hear nothing.
        locked = Job.objects.select_for_update().get(pk=job.pk)
        if locked.state == State.QUEUED:
            transition(job.pk, from_state=State.QUEUED, to=State.CANCELLED, reason="cancelled")
        elif locked.state == State.RUNNING:
            Job.objects.filter(pk=job.pk).update(cancel_requested=True)


def retry(*, job: Job) -> None:
    """Queue a failed or cancelled job again. Raises IllegalTransition for any other."""
    job.refresh_from_db(fields=["state"])
    if job.state not in (State.FAILED, State.CANCELLED):
        raise IllegalTransition(f"job {job.pk} is {job.state}; only ended jobs can be retried")
    with transaction.atomic():
        if requeue(job.pk, from_state=job.state, reason="retry", detail="asked for by a person"):
            Job.objects.filter(pk=job.pk).update(strikes=0, cancel_requested=False)


def reap_lost(*, on_given_up: Callable[[Job], None] | None = None) -> list[Job]:
    """Re-queue running jobs whose lease has run out; give up on those that have no chance left.

    Returns the jobs that were given up. `on_given_up` is called with each within the transaction
    that gives it up, so that its round ends with it or not at all.
    """
    given_up = []
    overdue = Job.objects.filter(state=State.RUNNING, lease_until__lt=Now())
    for job in overdue.select_related("run"):
        detail = "the worker stopped giving signs of life"
        with transaction.atomic():
            lost = lock_if_overdue(job) and transition(
                job.pk,
                from_state=State.RUNNING,
                to=State.LOST,
                held=job.token,
                reason="lost",
                detail=detail,
            )
            if not lost:
                continue
            Job.objects.filter(pk=job.pk).update(strikes=F("strikes") + 1)
            strikes = Job.objects.values_list("strikes", flat=True).get(pk=job.pk)
            if strikes < job.max_strikes:
                requeue(job.pk, from_state=State.LOST, reason="lost", detail=detail)
                continue
            detail += f", {strikes} times without getting any further"
            transition(job.pk, from_state=State.LOST, to=State.FAILED, reason="lost", detail=detail)
            if on_given_up is not None:
                on_given_up(job)
            given_up.append(job)
    return given_up


def dispatch_waiting() -> int:
    """Announce again what has waited for long; returns how many.

    Ends at the first that the broker does not take: a hundred waits for one that hangs would keep
    the worker from looking for lost jobs.
    """
    stale = Q(notified_at__isnull=True) | Q(
        notified_at__lt=in_future(-RESEND_EVERY.total_seconds())
    )
    waiting = Job.objects.filter(
        stale, state=State.QUEUED, created_at__lt=in_future(-RESEND_AFTER.total_seconds())
    )
    announced = 0
    for job_id, queue in waiting.values_list("pk", "queue")[:100]:
        if not notify(job_id=job_id, queue=queue):
            break
        announced += 1
    return announced
