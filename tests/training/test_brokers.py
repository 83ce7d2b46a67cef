"""A wake-up travels through every broker that is there, and through none the table is polled."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone

#: Sends a wake-up as the web does and receives it as the worker does, each by its own code.
ROUND_TRIP = """
import django; django.setup()
import dramatiq
from rlhf_platform.broker import embedded_broker
from training.actors import WAKE, broker
from training.services.wakeups import wakeups
with embedded_broker():
    listener = dramatiq.Worker(broker, queues={"training"}, worker_threads=1)
    listener.start()
    WAKE["training"].send(1)
    heard = wakeups.wait(10)
    listener.stop()
print("heard" if heard else "silence")
"""
#: Queues a job the way a launch does; prints how long that took with the broker away.
LAUNCH = """
import time
import django; django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from rlhf_platform.accounts.models import Workspace
from training.models import Job
from training.services.queueing import claim_next, enqueue
workspace = Workspace.objects.create(slug="w", name="W")
started = time.monotonic()
enqueue(kind="push_model", queue="default", workspace=workspace)
took = time.monotonic() - started
assert claim_next(queues=["default"]) is not None
print(f"queued {took:.3f}")
"""
BROKERS = {
    "embedded": ("embedded", None),
    "redis": ("redis://127.0.0.1:6379/15", 6379),
    "rabbitmq": ("amqp://guest:guest@127.0.0.1:5672", 5672),
}


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(script: str, broker: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env={
            **{k: v for k, v in os.environ.items() if k not in ("BROKER_URL", "DATABASE_URL")},
            "DJANGO_SETTINGS_MODULE": "rlhf_platform.settings",
            "DATA_DIR": str(folder),
            "BROKER_URL": broker,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("name", BROKERS)
def test_a_wake_up_arrives(name: str, tmp_path: Path) -> None:
    url, port = BROKERS[name]
    if port is not None and not listens(port):
        pytest.skip(f"no {name} answers on port {port}")
    done = run(ROUND_TRIP, url, tmp_path)
    assert done.stdout.strip() == "heard", done.stderr[-2000:]


@pytest.mark.parametrize("url", ["redis://127.0.0.1:9", "amqp://127.0.0.1:9", "embedded", "none"])
def test_a_launch_needs_no_broker(url: str, tmp_path: Path) -> None:
    done = run(LAUNCH, url, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split()[-1]) < 5.0  # a bound on hanging, not a speed


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_launch_does_not_wait_for_a_broker_that_hangs(scheme: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = run(LAUNCH, f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split()[-1]) < 5.0  # a bound on hanging, not a speed
