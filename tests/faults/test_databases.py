"""A database that dies or stays away during a run: no job fails, and no metric is lost."""

from __future__ import annotations

import time

import pytest

from tests.faults.conftest import Databases, Install, Measured
from tests.faults.installation import (
    ActFailed,
    Installation,
    complete,
    late_rows,
    newest_points,
    points,
    stand_in,
)
from tests.faults.servers import PostgreSQL

pytestmark = pytest.mark.faults
STEPS = 20
ENGINE = stand_in(steps=STEPS, step_s=0.5)


def begin(site: Installation, *, workers: int) -> int:
    """A round whose first run is at work and has points stored; its id."""
    site.act("open_lab")
    site.act("launch_round", method="dpo", config={})
    for _ in range(workers):
        site.worker(engine=ENGINE)
    (row,) = site.act("jobs")
    site.wait_until(lambda: site.act("history", job=row["id"])["metrics"], 30, "it has begun")
    job: int = row["id"]
    return job


def assert_unharmed(site: Installation, job: int, measured: Measured, what: str) -> None:
    site.wait_for_state(job, "succeeded", 90)
    history = site.act("history", job=job)
    lost = STEPS - len({row["step"] for row in history["metrics"]})
    failed = [row for row in site.act("jobs") if row["state"] == "failed"]
    attempts = len(history["attempts"])
    measured(what, f"{len(failed)} failed, {lost} points lost", f"0, 0; {attempts} attempts")
    assert failed == []
    assert complete(history["metrics"], "loss/train", STEPS)
    assert late_rows(history) == 0
    assert points(history) == newest_points(history)
    assert [to for _, to in history["moves"]].count("succeeded") == 1
    assert site.job(job)["strikes"] == 0


def test_postgresql_restarts_in_the_middle_of_a_run(
    install: Install, databases: Databases, postgres: PostgreSQL, measured: Measured
) -> None:
    site = install(database=databases("postgres"), lease_s=None)
    job = begin(site, workers=1)
    for _ in range(3):
        postgres.restart_immediately()
        time.sleep(1)
    assert_unharmed(site, job, measured, "PostgreSQL restarted thrice (immediate)")
    assert len(site.act("history", job=job)["attempts"]) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_postgresql_is_away_for_longer_than_a_lease(
    workers: int, install: Install, databases: Databases, postgres: PostgreSQL, measured: Measured
) -> None:
    site = install(database=databases("postgres"))
    job = begin(site, workers=workers)
    postgres.stop_immediately()
    try:
        with pytest.raises(ActFailed):
            site.act("launch_samplings")  # whoever launches meanwhile is told so
        time.sleep(2 * site.lease_s)
    finally:
        postgres.start()
    assert_unharmed(site, job, measured, f"PostgreSQL away for two leases, {workers} workers")
    assert [row["stage"] for row in site.act("jobs")][:2] == ["reward", "policy"]
    assert len([row for row in site.act("jobs") if row["stage"] == ""]) == 0


def test_postgresql_is_away_while_a_run_ends(
    install: Install, databases: Databases, postgres: PostgreSQL, measured: Measured
) -> None:
    """The child's last words and its result wait in the folder until somebody takes them."""
    site = install(database=databases("postgres"), lease_s=None)
    job = begin(site, workers=1)
    folder = site.runs / site.job(job)["folder"]
    postgres.stop_immediately()
    try:
        site.wait_until(lambda: (folder / "result.json").exists(), 30, "the engine has ended")
    finally:
        postgres.start()
    assert_unharmed(site, job, measured, "PostgreSQL away while a run ends")
    assert len(site.act("history", job=job)["attempts"]) == 1
