"""Wake-ups are sent on a thread of their own: whoever launches waits for no broker."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Lock, Thread

#: Seconds that a send may keep its caller: a launch answers within 300 ms whatever the broker does.
PATIENCE_S = 0.2


class Sender:
    """Does one call after another on a daemon thread, each of which its caller may leave behind.

    The thread lives as long as its process, since a client of RabbitMQ has a connection per thread.
    """

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # threads do not survive a fork

    def _reset(self) -> None:
        self._lock = Lock()
        self._calls: SimpleQueue[tuple[Callable[[], object], Future[None]]] = SimpleQueue()
        self._thread: Thread | None = None
        self._busy_since: float | None = None

    def send(self, call: Callable[[], object]) -> None:
        """Have a call done and wait PATIENCE_S for it; raises what it raises.

        Raises TimeoutError where it takes longer, and then it goes on by itself, or at once where
        the call before has taken longer already, and then it is not done at all.
        """
        with self._lock:
            since = self._busy_since
            if since is not None and time.monotonic() - since > PATIENCE_S:
                raise TimeoutError("the broker has not answered the message before")
            if self._thread is None:
                self._thread = Thread(target=self._work, name="sender", daemon=True)
                self._thread.start()
            done = Future[None]()
            self._calls.put((call, done))
        done.result(PATIENCE_S)

    def _work(self) -> None:
        while True:
            call, done = self._calls.get()
            self._busy_since = time.monotonic()
            try:
                call()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)
            self._busy_since = None
