"""The processes of a one-machine installation: worker and web under one parent."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from rlhf_platform.tied import tied
from training.errors import TrainingError

log = logging.getLogger(__name__)

#: Seconds a process may take to end after SIGTERM; a training child writes its checkpoint in it.
STOP_GRACE_S = 40
#: Connections that wait for the web, at most; the kernel may hold fewer (net.core.somaxconn).
BACKLOG = 2048

#: What a terminal, a service manager and a closed window send.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stop_event() -> threading.Event:
    """An event that is set when this process is asked to stop."""
    stopping = threading.Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stopping.set())
    return stopping


class PortInUse(TrainingError):
    """Raised when the web cannot listen; says on which port and what to do."""


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens, for `web` to take requests from. Raises PortInUse.

    The parent holds it: what has connected while the web is started again waits in it, and would
    be reset if the socket ended with the process that took from it.
    """
    try:
        return socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        raise PortInUse(
            f"{host}:{port} cannot be used ({error.strerror}); stop what listens there, "
            f"or choose another port, for example --port {port + 1}"
        ) from None


def manage(*arguments: str) -> list[str]:
    return [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), *arguments]


def web(listener: socket.socket) -> list[str]:
    """gunicorn with threads: pages are short and mostly wait for the database.

    Processes, because Python runs one thread of each at a time; forked when all is imported, so
    that they share most of their memory.
    """
    return [
        sys.executable, "-m", "gunicorn", "rlhf_platform.wsgi:application",
        "--bind", f"fd://{listener.fileno()}", "--worker-class", "gthread", "--preload",
        "--workers", str(settings.WEB_PROCESSES), "--threads", "8",
        "--graceful-timeout", "10", "--no-control-socket",
    ]  # fmt: skip


class Process:
    """A child that is started again when it dies by itself, and that ends when we do."""

    def __init__(self, name: str, command: Sequence[str], pass_fds: Sequence[int] = ()) -> None:
        self._name, self._command, self._pass_fds = name, list(command), tuple(pass_fds)
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            tied(self._command),
            cwd=settings.BASE_DIR,
            env=os.environ | {"DATA_DIR": str(settings.DATA_DIR)},
            pass_fds=self._pass_fds,
            # A Ctrl-C reaches the terminal's whole group; the parent alone ends its children, in
            # order, so that the worker still has its broker while it stops.
            start_new_session=True,
        )

    def keep_alive(self) -> None:
        status = self._process.poll()
        if status is not None:
            log.warning("%s ended with status %s; starting it again", self._name, status)
            self._process = self._start()

    def stop(self) -> None:
        """SIGTERM, patience, SIGKILL."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


@contextmanager
def running(name: str, command: Sequence[str], pass_fds: Sequence[int] = ()) -> Iterator[Process]:
    """A process that lives as long as the block."""
    process = Process(name, command, pass_fds)
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def serving(listener: socket.socket) -> Iterator[Process]:
    """The web, taking requests from `listener` as long as the block lasts."""
    with running("the web", web(listener), [listener.fileno()]) as process:
        yield process
