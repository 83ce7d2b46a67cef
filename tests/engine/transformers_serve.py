"""`transformers serve` as a child process: somebody else's server of the OpenAI protocol."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: Seconds in which a server has started, or never will.
PATIENCE_S = 240.0
#: What its access log says of a question that was answered.
ANSWERED = '"POST /v1/chat/completions HTTP/1.1" 200'

#: It asks nobody whether there is a newer one.
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}


@dataclass(frozen=True)
class Serving:
    """A server at work, pinned to one model folder; `log` holds what it printed."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def answered(self) -> int:
        return self.log.read_text(encoding="utf-8", errors="replace").count(ANSWERED)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


@contextmanager
def serving(model: Path, log: Path, *, port: int) -> Iterator[Serving]:
    """One that answers on 127.0.0.1, killed at the end. Raises AssertionError with its log."""
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model)]
    command += ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | OFFLINE
        )
    server = Serving(process, f"http://127.0.0.1:{port}/v1", log)
    try:
        wait_until_it_answers(server, f"http://127.0.0.1:{port}/health")
        yield server
    finally:
        server.kill()


def wait_until_it_answers(server: Serving, url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and server.process.poll() is None:
        try:
            with opener.open(url, timeout=5.0):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(server.log.read_text(encoding="utf-8", errors="replace")[-3000:])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
