"""The web is asked to stop under load: what it has accepted, it answers."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from collections import Counter

import psutil
import pytest

from tests.faults.conftest import Install, Measured
from tests.faults.installation import START_S, is_gone, words_of
from tests.faults.servers import free_port

pytestmark = pytest.mark.faults
REQUESTS, THREADS, RESTARTS = 1000, 8, 3
#: Bytes of one read.
PIECE = 65536


def ask(port: int, token: str) -> str:
    """One request on a connection of its own: "refused", or what became of it once it was taken."""
    head = f"GET /api/v1/projects HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    except OSError:
        return "refused"
    reply = b""
    with connection:
        try:
            connection.sendall((head + "Connection: close\r\n\r\n").encode())
            while piece := connection.recv(PIECE):
                reply += piece
        except OSError as error:
            return f"dropped: {type(error).__name__}, {len(reply)} bytes"
    return outcome(reply)


def outcome(reply: bytes) -> str:
    """Whether a reply is a whole 200."""
    head, _, body = reply.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    if not length or len(body) != int(length[1]):
        return f"dropped: {len(reply)} bytes of a reply"
    return "answered" if head.startswith(b"HTTP/1.1 200") else f"dropped: {head[:40]!r}"


def gunicorn(parent: int) -> psutil.Process:
    """The web's main process under `manage.py up`."""
    children = psutil.Process(parent).children()
    return next(child for child in children if "gunicorn" in words_of(child))


def test_it_drops_none_of_a_thousand_requests_while_it_is_restarted(
    install: Install, measured: Measured
) -> None:
    site = install()
    site.act("open_lab")
    token = site.act("make_token")
    port = free_port()
    parent = site.start("up", site.manage("up", "--port", str(port)))
    site.wait_until(lambda: ask(port, token) == "answered", START_S, "the site answers")
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()
    accepted = threading.Semaphore(REQUESTS)

    def load() -> None:
        while accepted.acquire(blocking=False):
            while (found := ask(port, token)) == "refused":
                with lock:
                    outcomes["refused"] += 1
                time.sleep(0.02)  # nobody has taken it: it is sent again
            with lock:
                outcomes[found] += 1

    clients = [threading.Thread(target=load) for _ in range(THREADS)]
    for client in clients:
        client.start()
    for number in range(1, RESTARTS + 1):
        share = REQUESTS * number // (RESTARTS + 1)
        site.wait_until(
            lambda n=share: sum(outcomes.values()) - outcomes["refused"] >= n,
            120,
            f"{share} requests have come back",
        )
        server = gunicorn(parent.pid)
        server.send_signal(signal.SIGTERM)  # its parent starts it again
        site.wait_until(lambda old=server: is_gone(old), 30, "the old one has ended")
    for client in clients:
        client.join(120)
    refused = outcomes.pop("refused", 0)
    dropped = REQUESTS - outcomes["answered"]
    measured(
        f"SIGTERM to the web, {RESTARTS} times under load",
        f"{dropped} dropped of {REQUESTS}",
        f"0; {refused} refused and sent again",
    )
    assert outcomes == {"answered": REQUESTS}
