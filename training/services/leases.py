"""Keeping a claim alive while its work goes on, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from training.errors import LostLease
from training.services import queueing
from training.services.queueing import Claim, clock

log = logging.getLogger(__name__)

#: What says that the database is away, not that something is wrong with a job.
AWAY = (OperationalError, InterfaceError)
#: Shares of a lease, counted from its last beat that the database took. Without another one a child
#: is asked to stop at the first; at the second it hears no pulse any more; and a child that hears
#: none for the third share ends itself. The last two stay below 1: it is gone before anybody else
#: may claim the job.
WORRIED, SAFE, CHILD_PATIENCE = 0.4, 0.6, 0.3


class Lease:
    """Beats for a claim within a `with` block.

    `interrupt` is set when the work should end: a person cancels, the worker stops, or the job is
    no longer ours. An absent database is waited for; how long that is safe is told by the clock.
    """

    def __init__(self, claim: Claim, stopping: threading.Event) -> None:
        self.interrupt = threading.Event()
        self.cancel_requested = claim.job.cancel_requested
        self._claim, self._stopping = claim, stopping
        self._lost = False
        self._over = threading.Event()
        # Before the claim, not from now on: this process may have been paused in between.
        self._beaten_at = claim.asked_at
        self._thread = threading.Thread(target=self._keep, name=f"lease-{claim.job.pk}")

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def age(self) -> float:
        """Share of the lease that has passed since the database last took a beat."""
        return (clock() - self._beaten_at) / settings.JOB_LEASE_S

    @property
    def safe(self) -> bool:
        """Whether nobody else can have claimed the job, nor will within the child's patience."""
        return not self._lost and self.age < SAFE

    def check(self) -> None:
        """Raise LostLease where another worker owns the job by now."""
        if self._lost:
            raise LostLease(f"job {self._claim.job.pk} is no longer ours")

    def _keep(self) -> None:
        pause_s = min(2.0, settings.JOB_LEASE_S / 6)
        try:
            while not self._over.is_set():
                close_old_connections()
                self._beat()
                if self._lost or self.cancel_requested or self._stopping.is_set():
                    self.interrupt.set()
                if self._lost:
                    return
                self._over.wait(pause_s)
        finally:
            connection.close()

    def _beat(self) -> None:
        asked_at = clock()
        try:
            self.cancel_requested = queueing.heartbeat(claim=self._claim) or self.cancel_requested
            self._beaten_at = asked_at
        except LostLease:
            self._lost = True
        except AWAY as error:
            log.warning("the beat of job %s found no database: %s", self._claim.job.pk, error)
            connection.close()
