"""The worker: loops that claim jobs, one for each group of queues that take turns.

A message from the broker only cuts the wait short. The same loops reap lost leases and announce
waiting jobs again, so that any one worker keeps the queue alive.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence

from django.conf import settings
from django.db import close_old_connections, connection

from training.errors import LostLease
from training.models import TAKING_TURNS, Job
from training.services import queueing, rounds
from training.services.executing import ENGINE, execute_run, fail
from training.services.judging_jobs import execute_judging
from training.services.leases import AWAY, SAFE
from training.services.measuring import execute_measurement
from training.services.publishing import execute_push
from training.services.queueing import Claim, clock
from training.services.retention import prune_checkpoints, prune_judgings
from training.services.wakeups import wakeups

log = logging.getLogger(__name__)

#: Seconds between two looks at the table when nothing wakes us.
POLL_S = 1.0
#: Seconds between two rounds of reaping and announcing.
HOUSEKEEPING_S = 2.0
#: Seconds between two looks for checkpoints that nobody needs any more.
PRUNING_S = 3600.0


class Worker:
    """Runs until `stopping` is set; a loop that meets a broken database waits and goes on."""

    def __init__(self, queues: Sequence[str], *, command: Sequence[str] = ENGINE) -> None:
        self.stopping = threading.Event()
        #: When housekeeping last reached the database, and until when it leaves leases alone.
        self._in_touch_at, self._patient_until = clock(), 0.0
        self._execute: dict[str, Callable[..., None]] = {
            Job.Kind.RUN: functools.partial(execute_run, command=command),
            Job.Kind.MEASURE: functools.partial(execute_measurement, command=command),
            Job.Kind.PUSH_SNAPSHOT: execute_push,
            Job.Kind.PUSH_MODEL: execute_push,
            Job.Kind.JUDGE: functools.partial(execute_judging, command=command),
        }
        groups = [[queue for queue in group if queue in queues] for group in TAKING_TURNS]
        loops: list[tuple[str, Callable[[], None]]] = [
            ("housekeeping", self._keep_house),
            ("pruning", self._prune),
        ]
        loops += [(f"jobs-{group[0]}", self._take(group)) for group in groups if group]
        self._threads = [
            threading.Thread(target=self._forever, args=(body,), name=name) for name, body in loops
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask every loop to end; a running child writes a checkpoint and its job is re-queued."""
        self.stopping.set()
        wakeups.set()
        for thread in self._threads:
            thread.join()

    def _forever(self, body: Callable[[], None]) -> None:
        while not self.stopping.is_set():
            close_old_connections()
            try:
                body()
            except AWAY as error:
                # Connections are closed so that the next try opens new ones.
                log.warning("the database does not answer (%s); trying again", error)
                connection.close()
                self.stopping.wait(HOUSEKEEPING_S)
            except Exception:  # a loop that ends would leave a worker that lives and does nothing
                log.exception("a worker's loop met what nobody expected; it goes on")
                connection.close()
                self.stopping.wait(HOUSEKEEPING_S)
        connection.close()

    def _take(self, queues: Sequence[str]) -> Callable[[], None]:
        def once() -> None:
            claim = queueing.claim_next(queues=queues)
            if claim is None:
                wakeups.wait(POLL_S)
                wakeups.clear()
                return
            log.info("job %s (%s), attempt %s", claim.job.pk, claim.job.kind, claim.attempt)
            started = time.monotonic()
            self._work(claim)
            log.info("job %s ended after %.1f s", claim.job.pk, time.monotonic() - started)

        return once

    def _work(self, claim: Claim) -> None:
        try:
            self._execute[claim.job.kind](claim=claim, stopping=self.stopping)
        except LostLease:
            log.warning("job %s was taken over by another worker", claim.job.pk)
        except AWAY:
            raise  # the job's lease ends, and whoever claims it next goes on
        except Exception as error:
            log.exception("job %s met what nobody expected", claim.job.pk)
            give_up(claim, error)

    def _keep_house(self) -> None:
        """Take back what lost its worker. Not at once where the database or the machine was away.

        Leases ran out meanwhile whose workers live: they beat, or give back what they stopped,
        before it is held against their jobs.
        """
        now = clock()
        if now - self._in_touch_at > max(2 * HOUSEKEEPING_S, settings.JOB_LEASE_S * SAFE):
            self._patient_until = now + 2 * HOUSEKEEPING_S
        if now >= self._patient_until:
            queueing.reap_lost(on_given_up=end_its_round)
        queueing.dispatch_waiting()
        self._in_touch_at = clock()
        self.stopping.wait(HOUSEKEEPING_S)

    def _prune(self) -> None:
        """Apart from housekeeping: hashing what is kept may take longer than a lease lasts."""
        if self.stopping.wait(PRUNING_S):
            return
        checkpoints, judgings = prune_checkpoints(), prune_judgings()
        if checkpoints or judgings:
            log.info(
                "%s checkpoints and %s judgings deleted that nobody needs any more",
                len(checkpoints),
                len(judgings),
            )


def give_up(claim: Claim, error: Exception) -> None:
    """Fail a job for a reason that is ours; the log has the trace."""
    detail = f"this is a fault of ours, see the worker's log: {type(error).__name__}: {error}"
    try:
        if claim.job.run is not None:
            fail(claim, claim.job.run, reason="bug", detail=detail)
        else:
            queueing.finish(claim=claim, to=Job.State.FAILED, reason="bug", detail=detail)
    except LostLease:
        log.warning("job %s was taken over by another worker", claim.job.pk)


def end_its_round(job: Job) -> None:
    if job.run is not None:
        reason = "its worker was lost again and again"
        rounds.run_ended_badly(run=job.run, to="failed", reason=reason)
