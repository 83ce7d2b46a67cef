"""Brokers that are away, silent, emptied or killed: they delay work at most, and lose none."""

from __future__ import annotations

import signal
import socket
import statistics
import time

import psutil
import pytest

from tests.faults.conftest import Install, Measured
from tests.faults.installation import Installation, is_gone, stand_in, words_of
from tests.faults.servers import Redis, listens

QUICK = stand_in(steps=1)
RABBITMQ_PORT = 5672
RABBITMQ = f"amqp://guest:guest@127.0.0.1:{RABBITMQ_PORT}"
#: The stages of a round by DPO.
STAGES = ["reward", "policy", "evaluate", "sample_policy", "sample_reference"]


def all_succeeded(site: Installation, number: int) -> bool:
    states = [row["state"] for row in site.act("jobs")]
    return len(states) == number and set(states) == {"succeeded"}


def assert_each_once(site: Installation, number: int) -> None:
    """So many samplings of two prompts and two answers each, every one of them done once."""
    rows = site.act("count_rows")
    assert rows["successes"] == number
    assert rows["samples"] == 4 * number
    assert rows["comparisons"] == 2 * number
    assert {row["attempts"] for row in site.act("jobs")} == {1}
    assert site.engines() == []


@pytest.mark.faults
@pytest.mark.parametrize("name", ["none", "embedded", "redis", "rabbitmq"])
def test_the_same_work_is_done_over_every_broker(
    name: str, install: Install, request: pytest.FixtureRequest, measured: Measured
) -> None:
    url = name
    if name == "redis":
        server: Redis = request.getfixturevalue("redis_server")
        url = server.url
    elif name == "rabbitmq":
        if not listens(RABBITMQ_PORT):
            pytest.skip(f"no RabbitMQ answers on port {RABBITMQ_PORT}")
        url = RABBITMQ
    site = install(broker=url)
    site.act("open_lab")
    site.act("launch_samplings", count=2)  # before a worker is up, and an embedded broker with it
    worker = site.worker(engine=QUICK)
    site.wait_until(lambda: all_succeeded(site, 2), 60, "what waited is done")
    pauses = []
    for number in (3, 4, 5):
        (job,) = site.act("launch_samplings")
        launched = time.time()
        site.wait_until(lambda n=number: all_succeeded(site, n), 30, "the next is done")
        pauses.append(site.act("history", job=job)["attempts"][0]["started"] - launched)
    assert_each_once(site, 5)
    measured(f"launch to claim, {name}", f"{statistics.median(pauses):.2f} s", "≤ 10 s")
    assert max(pauses) <= 10

    site.act("launch_round", method="dpo", config={})
    site.wait_until(lambda: all_succeeded(site, 10), 60, "the round's stages are done")
    assert [row["stage"] for row in site.act("jobs")[5:]] == STAGES
    assert site.act("jobs")[-1]["round"] == "awaiting_verdict"
    worker.send(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert site.processes() == [psutil.Process(site.person_pid)]


@pytest.mark.parametrize(
    "waiting", [4, pytest.param(100, marks=[pytest.mark.faults, pytest.mark.timeout(600)])]
)
def test_an_emptied_broker_loses_nothing(
    waiting: int, install: Install, redis_server: Redis, measured: Measured
) -> None:
    site = install(broker=redis_server.url)
    site.act("open_lab")
    site.act("launch_samplings", count=waiting + 1)
    site.worker(engine=stand_in(steps=2, step_s=0.2))
    site.wait_for_engine()
    redis_server.client().flushall()
    site.wait_until(lambda: all_succeeded(site, waiting + 1), 60 + 4 * waiting, "every job is done")
    assert_each_once(site, waiting + 1)
    measured(f"FLUSHALL with {waiting} queued, 1 running", f"{waiting + 1} done, once", "all, once")


@pytest.mark.faults
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
@pytest.mark.parametrize("how", ["away", "silent"])
def test_a_launch_does_not_wait_for_its_broker(
    scheme: str, how: str, install: Install, measured: Measured
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        if how == "silent":
            deaf.listen(64)  # the kernel takes the connection, and nobody ever answers
        address = f"{scheme}://guest:guest@127.0.0.1:{deaf.getsockname()[1]}"
        site = install(broker=address)
        site.act("open_lab")
        took = site.act("time_launches", count=3, within_s=120)
        middle, worst = statistics.median(took), max(took)
        figures = f"{1000 * middle:.0f} ms, worst {1000 * worst:.0f}"
        measured(f"launch, {scheme} broker {how}", figures, "< 300 ms")
        assert middle < 0.3
        site.worker(engine=QUICK)
        site.wait_until(lambda: all_succeeded(site, 3), 60, "the table alone is enough")
        assert_each_once(site, 3)


@pytest.mark.faults
def test_work_starts_soon_after_a_broker_that_was_away_for_a_minute(
    install: Install, redis_server: Redis, measured: Measured
) -> None:
    redis_server.stop()
    down = time.monotonic()
    site = install(broker=redis_server.url)
    site.act("open_lab")
    site.worker(engine=QUICK)
    (early,) = site.act("launch_samplings")
    launched = time.time()
    site.wait_until(lambda: all_succeeded(site, 1), 60, "the table alone is enough")
    waited = site.act("history", job=early)["attempts"][0]["started"] - launched
    measured("start while the broker is away", f"{waited:.1f} s", "polled")
    time.sleep(max(0.0, 60 - (time.monotonic() - down)))
    redis_server.start()
    back = time.time()
    (late,) = site.act("launch_samplings")
    site.wait_until(lambda: all_succeeded(site, 2), 30, "it starts after the broker is back")
    waited = site.act("history", job=late)["attempts"][0]["started"] - back
    measured("start after 60 s without a broker", f"{waited:.1f} s", "≤ 10 s")
    assert waited <= 10
    assert_each_once(site, 2)


@pytest.mark.faults
def test_everything_killed_at_once_goes_on_where_it_was(install: Install) -> None:
    site = install(broker="embedded")
    site.act("open_lab")
    worker = site.worker(engine=stand_in(steps=4, step_s=0.5))
    jobs = site.act("launch_samplings", count=4)
    engine = site.wait_for_engine()
    (valkey,) = [p for p in site.processes() if "valkey" in " ".join(words_of(p))]
    for process in (valkey, engine):
        process.kill()
    worker.kill()
    site.wait_until(lambda: is_gone(engine) and is_gone(valkey), 10, "all is gone")
    site.worker(engine=QUICK)
    site.wait_until(lambda: all_succeeded(site, 4), 60, "the jobs are done")
    rows = site.act("count_rows")
    assert (rows["successes"], rows["samples"]) == (4, 16)
    assert len(site.act("history", job=jobs[0])["attempts"]) == 2
