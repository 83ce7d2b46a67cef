"""Running the engine as a child process: folder in, events forwarded, one result out."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from training.errors import LostLease
from training.models import Job, Run
from training.services import queueing, rounds
from training.services.calibrating import record_calibration
from training.services.children import Child
from training.services.folders import prepare_folder
from training.services.forwarding import Forwarder, read_result, replay_earlier
from training.services.leases import AWAY, Lease
from training.services.queueing import Claim
from training.services.supervising import Ending, supervise, when_it_answers

log = logging.getLogger(__name__)

ENGINE = (sys.executable, "-m", "training.engine")
#: The engine's exit statuses beside 0 and 1 (docs/reference/run-directory.md).
EXIT_NO_SPACE, EXIT_INTERRUPTED = 74, 75
#: Why a child that was asked to stop was asked, in the words of the job's history.
INTERRUPTED = {
    "stopping": "its worker was stopped; it goes on from its checkpoint",
    "database": "the database was away for too long; it goes on from its checkpoint",
    "": "interrupted; it goes on from its checkpoint",
}


def execute_run(
    *, claim: Claim, stopping: threading.Event, command: Sequence[str] = ENGINE
) -> None:
    """Run a claimed job's engine run to its end and record what came of it.

    A lost lease, a cancel and the worker's own shutdown all end the child first. Raises LostLease
    after the child is gone where another worker owns the job by now.
    """
    run = claim.job.run
    assert run is not None  # noqa: S101 - the job's check constraint
    with Lease(claim, stopping) as lease:
        end = attempt(claim, run, lease, stopping, command)
        when_it_answers(end, stopping=stopping)


def attempt(
    claim: Claim, run: Run, lease: Lease, stopping: threading.Event, command: Sequence[str]
) -> Callable[[], None]:
    """Work on a claimed run. Returns the write that records how that ended."""
    if claim.job.cancel_requested:  # asked of a worker that was lost before it could obey
        return functools.partial(end_cancelled, claim, run)
    try:
        folder = when_it_answers(functools.partial(prepare_folder, run), stopping=stopping)
        replay = functools.partial(replay_earlier, claim=claim, folder=folder)
        when_it_answers(replay, stopping=stopping)
        earlier = read_result(folder)
        if earlier is not None and earlier["status"] == "done":
            # A worker died between the engine's end and its own last write: take that over.
            return functools.partial(succeed, claim, earlier)
        if earlier is not None:  # a person asked for another try
            when_it_answers(functools.partial(set_aside, claim, folder), stopping=stopping)
        child = Child(
            command, folder, claim.token.hex, alive=lambda: lease.safe, given=given_to(run)
        )
    except OSError as error:
        detail = f"the run folder could not be written: {error}"
        return functools.partial(fail, claim, run, reason="disk", detail=detail)
    forwarder = Forwarder(claim, claim.attempt, folder / "attempts" / claim.token.hex)
    try:
        ending = supervise(lease, child, forwarder, stopping)
    finally:
        child.close()
    return functools.partial(take_over, claim, folder, child, forwarder, ending)


def given_to(run: Run) -> dict[str, str]:
    """What a run's process sees beside the usual: comparisons, which alone may make an index in a
    database, that database's address. A run that only answers makes its index in its folder."""
    url = settings.VECTORS_DATABASE_URL
    return {"VECTORS_DATABASE_URL": url} if url and run.method == "compare" else {}


def set_aside(claim: Claim, folder: Path) -> None:
    """Move a result that a person wants to better out of the way. Raises LostLease.

    Under the job's lock: a worker that was paused here must not move what the next attempt made.
    """
    with queueing.fenced(claim=claim), contextlib.suppress(FileNotFoundError):
        (folder / "result.json").replace(folder / f"result-before-{claim.attempt}.json")


def take_over(
    claim: Claim, folder: Path, child: Child, forwarder: Forwarder, ending: Ending
) -> None:
    """Record how an attempt ended. May be done again where the database left in the middle."""
    forwarder.forward()
    run = Run.objects.get(job=claim.job.pk)
    result = read_result(folder)
    if result is not None and result["status"] == "done":
        succeed(claim, result)
    elif ending.asked == "cancel":
        end_cancelled(claim, run)
    elif ending.status == EXIT_INTERRUPTED or ending.asked:
        queueing.give_back(claim=claim, reason="preempted", detail=INTERRUPTED[ending.asked])
    elif ending.status == EXIT_NO_SPACE:
        fail(claim, run, reason="disk", detail=no_space(child, folder))
    elif result is not None:
        reason = str(result.get("cause") or "refused")
        fail(claim, run, reason=reason, detail=str(result.get("reason")), result=result)
    else:
        lost_child(claim, run, child, ending.status)


def no_space(child: Child, folder: Path) -> str:
    """The child's own words on what did not fit, or ours where there was no room for those."""
    said = child.last_words()
    if any(word in said.lower() for word in ("space", "room")):
        return said
    return f"no space left for its log on the disk of {folder}; make room, then try again"


def succeed(claim: Claim, result: dict[str, Any]) -> None:
    """Job, result and what the round does next become true together, or not at all."""
    run = Run.objects.get(job=claim.job.pk)  # anew: an earlier try may have changed the other
    try:
        with transaction.atomic():
            queueing.lock_round(run.round_id)
            queueing.finish(claim=claim, to=Job.State.SUCCEEDED)
            run.result = result
            run.save(update_fields=["result"])
            record_calibration(run=run)
            rounds.run_finished(run=run)
    except (LostLease, *AWAY):
        raise  # a database that is away is no fault of the run: the next try takes it over
    except Exception as error:
        log.exception("what %s made could not be taken over", run)
        fail(claim, run, reason="bug", detail=f"its result could not be taken over: {error}")


def fail(
    claim: Claim, run: Run, *, reason: str, detail: str, result: dict[str, Any] | None = None
) -> None:
    with transaction.atomic():
        queueing.lock_round(run.round_id)
        queueing.finish(claim=claim, to=Job.State.FAILED, reason=reason, detail=detail)
        if result is not None:
            run.result = result
            run.save(update_fields=["result"])
        rounds.run_ended_badly(run=run, to="failed", reason=detail)


def end_cancelled(claim: Claim, run: Run) -> None:
    with transaction.atomic():
        queueing.lock_round(run.round_id)
        queueing.finish(claim=claim, to=Job.State.CANCELLED, reason="cancelled")
        rounds.run_ended_badly(run=run, to="cancelled", reason="Cancelled by a person.")


def lost_child(claim: Claim, run: Run, child: Child, status: int) -> None:
    """The child died without a result: say how, and try again while chances are left."""
    reason, detail = why_it_died(child, status)
    if queueing.is_last_chance(claim.job):
        fail(claim, run, reason=reason, detail=detail)
    else:
        queueing.give_back(claim=claim, reason=reason, detail=detail, strikes=1)


def why_it_died(child: Child, status: int) -> tuple[str, str]:
    """(reason, detail) of a child that ended without a result."""
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        if child.ran_out_of_memory():
            return "oom", "the kernel ended the process because memory ran out"
        return "lost", "the process was killed from outside (signal 9)"
    return "bug", f"the process ended with status {status}: {child.log_tail(600)}"
