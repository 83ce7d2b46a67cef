"""Watching over a child until it has ended, whatever becomes of the database meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from django.db import close_old_connections, connection

from training.services.children import Child
from training.services.leases import AWAY, WORRIED, Lease

log = logging.getLogger(__name__)
T = TypeVar("T")

POLL_S = 0.5
#: Seconds between a person's cancel and the final signal to the child.
GRACE_S = 6.0
#: After the worker's own SIGTERM the child may take this long for its checkpoint.
SHUTDOWN_GRACE_S = 25.0
#: Seconds between two tries to reach a database that is away.
AWAY_PAUSE_S = 1.0


class Forwards(Protocol):
    """Whoever copies what a child writes to the database."""

    def forward(self) -> None: ...


@dataclass(frozen=True)
class Ending:
    """How a child ended: its status, and why it was asked to stop (empty: it was not)."""

    status: int
    asked: str


def supervise(lease: Lease, child: Child, forwarder: Forwards, stopping: threading.Event) -> Ending:
    """Forward and listen until the child has ended.

    Raises LostLease where another worker owns the job by now; the caller's `close` ends the child.
    """
    asked, deadline = "", float("inf")
    while child.process.poll() is None:
        lease.check()
        wish, grace_s = wish_to_stop(lease, stopping)
        if wish and not asked:
            asked, deadline = wish, time.monotonic() + grace_s
            child.ask_to_stop()
        if time.monotonic() > deadline:
            child.kill()
            break
        try_to_forward(forwarder)
        time.sleep(POLL_S)
    return Ending(child.process.wait(), asked)


def wish_to_stop(lease: Lease, stopping: threading.Event) -> tuple[str, float]:
    """Why the child should stop now (empty: it should not), and the seconds it may take."""
    if lease.cancel_requested:
        return "cancel", GRACE_S
    if stopping.is_set():
        return "stopping", SHUTDOWN_GRACE_S
    if lease.age > WORRIED:
        # Its pulse ends a little later, and with it the child, whatever this loop does then.
        return "database", SHUTDOWN_GRACE_S
    return "", 0.0


def try_to_forward(forwarder: Forwards) -> None:
    """Forward what the database takes; what it does not take stays in the child's file."""
    close_old_connections()
    try:
        forwarder.forward()
    except AWAY as error:
        log.warning("events wait in their file, the database is away (%s)", type(error).__name__)
        connection.close()
        time.sleep(AWAY_PAUSE_S)


def when_it_answers(work: Callable[[], T], *, stopping: threading.Event) -> T:
    """Do what needs the database, again and again while it is away. Returns what `work` does.

    Raises what says that it is away only once the worker itself has to end; the job's lease then
    runs out, and whoever claims it next takes over what is in its folder.
    """
    while True:
        close_old_connections()
        try:
            return work()
        except AWAY:
            connection.close()
            if stopping.wait(AWAY_PAUSE_S):
                raise
