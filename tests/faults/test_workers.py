"""Workers that are killed, frozen and stopped: their jobs go on elsewhere, once."""

from __future__ import annotations

import signal
import time
from typing import Any

import psutil
import pytest

from tests.faults.conftest import Databases, Install, Measured
from tests.faults.installation import (
    Installation,
    Running,
    complete,
    is_gone,
    late_rows,
    newest_points,
    points,
    stand_in,
)

STEPS = 8
ENGINE = stand_in(steps=STEPS, step_s=0.5)


def assert_done_once(site: Installation, job: int) -> dict[str, Any]:
    history: dict[str, Any] = site.act("history", job=job)
    assert [to for _, to in history["moves"]].count("succeeded") == 1
    assert complete(history["metrics"], "loss/train", STEPS)
    assert late_rows(history) == 0
    assert points(history) == newest_points(history)
    assert history["samples"] == 4
    assert site.act("count_rows")["comparisons"] == 2
    assert site.engines() == []
    return history


def begin(site: Installation) -> tuple[int, Running, psutil.Process]:
    """A job at work, some events of which are stored."""
    site.act("open_lab")
    (job,) = site.act("launch_samplings")
    worker = site.worker(engine=ENGINE)
    engine = site.wait_for_engine()
    site.wait_until(lambda: site.act("history", job=job)["metrics"], 30, "a metric is stored")
    return job, worker, engine


def test_a_killed_workers_run_is_taken_up_by_the_next(install: Install, measured: Measured) -> None:
    site = install()
    job, first, engine = begin(site)
    second = site.worker(engine=ENGINE)
    killed = time.time()
    first.kill()
    site.wait_until(lambda: is_gone(engine), site.lease_s / 2, "its child is gone")
    site.wait_for_state(job, "succeeded", 60)
    history = assert_done_once(site, job)
    waited = history["attempts"][1]["started"] - killed
    measured("kill -9 of a worker, lease 5 s", f"restarted after {waited:.1f} s", "≤ 10 s")
    assert waited <= 10
    assert [attempt["outcome"] for attempt in history["attempts"]] == ["lost", "succeeded"]
    second.send(signal.SIGTERM)
    assert second.wait(30) == 0


@pytest.mark.faults
def test_with_shipped_settings_it_is_taken_up_within_a_minute(
    install: Install, measured: Measured
) -> None:
    site = install(lease_s=None)
    job, first, _ = begin(site)
    site.worker(engine=ENGINE)
    killed = time.time()
    first.kill()
    site.wait_for_state(job, "succeeded", 90)
    waited = assert_done_once(site, job)["attempts"][1]["started"] - killed
    measured("kill -9 of a worker, lease as shipped", f"restarted after {waited:.1f} s", "≤ 60 s")
    assert waited <= 60


@pytest.mark.faults
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_worker_frozen_past_its_lease_wakes_to_nothing(
    database: str, install: Install, databases: Databases, measured: Measured
) -> None:
    site = install(database=databases(database))
    job, first, engine = begin(site)
    first.send(signal.SIGSTOP)
    engine.suspend()
    site.worker(engine=ENGINE)

    def claimed_again() -> bool:
        return len(site.act("history", job=job)["attempts"]) == 2

    site.wait_until(claimed_again, 30, "another worker has claimed the job")
    first.send(signal.SIGCONT)
    engine.resume()
    woken = time.monotonic()
    site.wait_until(lambda: is_gone(engine), 30, "the old child is gone")
    lived = time.monotonic() - woken
    site.wait_for_state(job, "succeeded", 60)
    history = assert_done_once(site, job)
    assert [attempt["outcome"] for attempt in history["attempts"]] == ["lost", "succeeded"]
    measured(f"SIGSTOP of worker and child ({database})", "0 rows of the old token", "0 rows")
    measured(
        f"… the old child after SIGCONT ({database})", f"{lived:.1f} s", "≤ 2.5 s, half a lease"
    )
    assert lived <= site.lease_s / 2
    assert first.process.poll() is None  # it lives on, and takes the next job
    (another,) = site.act("launch_samplings")
    site.wait_for_state(another, "succeeded", 60)


@pytest.mark.faults
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_child_whose_supervisor_is_frozen_ends_itself(
    database: str, install: Install, databases: Databases, measured: Measured
) -> None:
    site = install(database=databases(database))
    job, first, engine = begin(site)
    first.send(signal.SIGSTOP)
    frozen = time.monotonic()
    site.wait_until(lambda: is_gone(engine), 30, "the child is gone")
    lived = time.monotonic() - frozen
    measured(
        f"SIGSTOP of the supervisor alone ({database})", f"child gone: {lived:.1f} s", "≤ 2.5 s"
    )
    assert lived <= site.lease_s / 2
    site.worker(engine=ENGINE)
    site.wait_for_state(job, "succeeded", 60)
    first.send(signal.SIGCONT)
    assert [a["outcome"] for a in assert_done_once(site, job)["attempts"]] == ["lost", "succeeded"]
    first.send(signal.SIGTERM)
    assert first.wait(30) == 0


@pytest.mark.faults
def test_a_stopped_worker_leaves_a_checkpoint_and_a_queued_job(
    install: Install, tiny: str, measured: Measured
) -> None:
    site = install()
    site.act("open_lab", base=tiny)
    policy = {"optim": {"batch_size": 2, "epochs": 100}}
    site.act("launch_round", method="sft", config={"policy": policy})
    (row,) = site.act("jobs")
    worker = site.worker()
    site.wait_until(lambda: site.act("history", job=row["id"])["metrics"], 60, "it trains")
    asked = time.monotonic()
    worker.send(signal.SIGTERM)
    assert worker.wait(40) == 0
    took = time.monotonic() - asked
    measured("SIGTERM to a training worker", f"queued again in {took:.1f} s", "≤ 30 s, exit 0")
    assert took <= 30
    assert site.job(row["id"])["state"] == "queued"
    assert site.job(row["id"])["strikes"] == 0
    history = site.act("history", job=row["id"])
    assert [(a["outcome"], a["reason"]) for a in history["attempts"]] == [("lost", "preempted")]
    (checkpoint,) = history["checkpoints"]
    last = max(metric["step"] for metric in history["metrics"])
    assert checkpoint["step"] == last
    assert (site.runs / row["folder"] / checkpoint["path"] / "manifest.json").is_file()
    assert site.engines() == []
