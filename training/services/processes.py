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


def require_port(host: str, port: int) -> None:
    """Raise PortInUse unless `port` can be listened on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortInUse(
                f"{host}:{port} cannot be used ({error.strerror}); stop what listens there, "
                f"or choose another port, for example --port {port + 1}"
            ) from None


def manage(*arguments: str) -> list[str]:
    return [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), *arguments]


def web(host: str, port: int) -> list[str]:
    """gunicorn with threads: pages are short and mostly wait for the database."""
    return [
        sys.executable, "-m", "gunicorn", "rlhf_platform.wsgi:application",
        "--bind", f"{host}:{port}", "--worker-class", "gthread", "--workers", "1",
        "--threads", "8", "--graceful-timeout", "10", "--no-control-socket",
    ]  # fmt: skip


class Process:
    """A child that is started again when it dies by itself, and that ends when we do."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self._name, self._command = name, list(command)
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            tied(self._command),
            cwd=settings.BASE_DIR,
            env=os.environ | {"DATA_DIR": str(settings.DATA_DIR)},
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
def running(name: str, command: Sequence[str]) -> Iterator[Process]:
    """A process that lives as long as the block."""
    process = Process(name, command)
    try:
        yield process
    finally:
        process.stop()
