"""os._exit at every point between a launch and its end: plain processes finish the job, once.

What a death adds is counted from when somebody could go on: a worker is up again, and the lease
that the dead one held has run out. The time of a run that nothing disturbs is taken off.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Install, Measured
from tests.faults.crashing import STATUS
from tests.faults.installation import (
    Installation,
    PersonGone,
    complete,
    crashing_engine,
    stand_in,
)
from tests.faults.servers import Redis

#: Seconds that a death may add.
EXTRA_S = 5.0
STEPS = 3
ENGINE = stand_in(steps=STEPS)

#: In the process that launches.
LAUNCHING = {
    "nothing written": "before:training.services.queueing.enqueue",
    "written, not committed": "after:training.services.queueing.enqueue",
    "committed, not sent": "before:training.services.queueing.notify",
    "sent": "after:training.services.queueing.notify",
}
#: In the worker.
WORKING = {
    "before the claim": "before:training.services.queueing.claim",
    "claimed, not committed": "after:training.services.queueing.transition?to=running",
    "claimed": "after:training.services.queueing.claim",
    "the folder is made": "after:training.services.executing.prepare_folder",
    "the child is started": "after:training.services.executing.Child.__init__",
    "events stored, not committed": "after:django.db.models.query.QuerySet.bulk_create",
    "the child is done": "before:training.services.executing.succeed",
    "ended, not committed": "after:training.services.queueing.finish?to=succeeded",
    "taken over, not committed": "after:training.services.rounds.run_finished",
    "taken over": "after:training.services.executing.succeed",
}
#: In a worker that finds a lost lease.
REAPING = {
    "lost, not queued": "after:training.services.queueing.transition?to=lost",
    "queued again, not committed": "after:training.services.queueing.requeue",
    "reaped": "after:training.services.queueing.reap_lost",
}
#: In the engine.
TRAINING = {
    "a checkpoint's first file": "after:safetensors.torch.save_file",
    "a checkpoint without its name": "before:training.engine.files.publish_folder",
    "a checkpoint announced": "after:training.engine.checkpoint.save_checkpoint",
    "before the result": "before:training.engine.rundir.publish_result",
    "a result that nobody sees": "before:training.engine.files.link_once",
    "after the result": "after:training.engine.rundir.publish_result",
}
TRAINING_STEPS = 6


def cases(points: dict[str, str], *, short: str = "") -> list[Any]:
    """The points as parameters; all but one are left to `make test-faults`."""
    return [
        pytest.param(name, id=name, marks=[] if name == short else [pytest.mark.faults])
        for name in points
    ]


@pytest.fixture(scope="module")
def undisturbed() -> list[float]:
    """Seconds from claim to end of a run that nothing disturbs; empty until one was timed."""
    return []


def time_undisturbed(site: Installation, undisturbed: list[float]) -> float:
    """Launches one more job where a plain worker is up, unless one was timed already."""
    if not undisturbed:
        (job,) = site.act("launch_samplings")
        site.wait_for_state(job, "succeeded", 60)
        history = site.act("history", job=job)
        undisturbed.append(history["finished"] - history["attempts"][0]["started"])
    return undisturbed[0]


def die(site: Installation, point: str, flag: Path) -> None:
    """A worker that lives until it comes to the point."""
    worker = site.start("dying", site.worker_command(engine=ENGINE, crash=(point, flag)))
    assert worker.wait(90) == STATUS


def finish(site: Installation, job: int) -> tuple[float, dict[str, Any]]:
    """Let a plain worker end the job: when it could go on, and the job's history."""
    lease_until = site.job(job)["lease_until"] or 0.0
    site.worker(engine=ENGINE)
    could_go_on = max(time.time(), lease_until)
    site.wait_for_state(job, "succeeded", 60)
    history: dict[str, Any] = site.act("history", job=job)
    assert [to for _, to in history["moves"]].count("succeeded") == 1
    assert complete(history["metrics"], "loss/train", STEPS)
    assert history["samples"] == 4
    assert site.act("count_rows")["comparisons"] == 2
    assert site.engines() == []
    return could_go_on, history


@pytest.mark.parametrize("name", cases(LAUNCHING, short="committed, not sent"))
def test_whoever_launches_dies(
    name: str,
    install: Install,
    redis_server: Redis,
    undisturbed: list[float],
    tmp_path: Path,
    measured: Measured,
) -> None:
    site = install(broker=redis_server.url)
    site.act("open_lab")
    dying = site.person(crash=(LAUNCHING[name], tmp_path / "died"))
    with pytest.raises(PersonGone):
        dying.act("launch_samplings", {}, 60)
    dying.close()
    assert dying.process.returncode == STATUS
    if name in ("nothing written", "written, not committed"):
        assert site.act("jobs") == []
        assert site.act("count_rows")["runs"] == 0
        site.act("launch_samplings")  # nobody was told that it worked, so they try again
    (row,) = site.act("jobs")
    could_go_on, history = finish(site, row["id"])
    assert len(history["attempts"]) == 1
    note_extra(f"launch: {name}", site, undisturbed, could_go_on, history, measured)


@pytest.mark.parametrize("name", cases(WORKING, short="claimed"))
def test_a_worker_dies(
    name: str, install: Install, undisturbed: list[float], tmp_path: Path, measured: Measured
) -> None:
    site = install()
    site.act("open_lab")
    (job,) = site.act("launch_samplings")
    die(site, WORKING[name], tmp_path / "died")
    could_go_on, history = finish(site, job)
    note_extra(f"worker: {name}", site, undisturbed, could_go_on, history, measured)


@pytest.mark.faults
@pytest.mark.parametrize("name", REAPING)
def test_whoever_reaps_a_lost_job_dies(
    name: str, install: Install, undisturbed: list[float], tmp_path: Path, measured: Measured
) -> None:
    site = install()
    site.act("open_lab")
    (job,) = site.act("launch_samplings")
    die(site, WORKING["claimed"], tmp_path / "first")
    if name == "reaped":  # a worker reaps as it starts, and the lease must have run out by then
        site.wait_until(
            lambda: time.time() > (site.job(job)["lease_until"] or 0), 30, "the lease is over"
        )
    die(site, REAPING[name], tmp_path / "second")
    could_go_on, history = finish(site, job)
    note_extra(f"reaper: {name}", site, undisturbed, could_go_on, history, measured)


def note_extra(
    what: str,
    site: Installation,
    undisturbed: list[float],
    could_go_on: float,
    history: dict[str, Any],
    measured: Measured,
) -> None:
    extra = history["finished"] - could_go_on - time_undisturbed(site, undisturbed)
    measured(f"os._exit, {what}", f"{max(extra, 0.0):.1f} s more", "≤ 5 s, once")
    assert extra <= EXTRA_S


@pytest.mark.faults
@pytest.mark.parametrize("name", TRAINING)
def test_an_engine_dies(
    name: str, install: Install, tiny: str, tmp_path: Path, measured: Measured
) -> None:
    site = install()
    site.act("open_lab", base=tiny)
    optim = {"batch_size": 2, "max_steps": TRAINING_STEPS}
    site.act(
        "launch_round", method="sft", config={"policy": {"optim": optim, "checkpoint_every": 1}}
    )
    (row,) = site.act("jobs")
    engine = crashing_engine(TRAINING[name], tmp_path / "died")
    worker = site.worker(engine=engine)
    site.wait_for_state(row["id"], "succeeded", 120)
    worker.kill()  # what comes after this stage is another test's
    history = site.act("history", job=row["id"])
    assert (tmp_path / "died").exists()
    assert [to for _, to in history["moves"]].count("succeeded") == 1
    assert complete(history["metrics"], "loss/train", TRAINING_STEPS)
    assert history["output"] is not None
    waited = history["attempts"][-1]["started"] - (tmp_path / "died").stat().st_mtime
    measured(f"os._exit, engine: {name}", f"next attempt {max(waited, 0.0):.1f} s", "≤ 5 s, once")
    assert waited <= EXTRA_S
