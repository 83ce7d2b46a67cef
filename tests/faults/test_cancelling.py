"""A cancel is obeyed within ten seconds in every state and phase, and leaves no process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Install, Measured
from tests.faults.installation import ActFailed, Installation, is_gone, stand_in

CANCEL_S = 10.0
#: Long enough to be still at work whenever a test looks.
LONG = {"epochs": 400, "batch_size": 2}


def cancel(site: Installation, job: int, measured: Measured, what: str) -> None:
    """Cancel a job; within ten seconds it has ended, and with it whatever worked for it."""
    asked = time.monotonic()
    site.act("cancel", job=job)
    site.wait_for_state(job, "cancelled", 30)
    site.wait_until(lambda: not site.engines(), 30, "no engine is left")
    took = time.monotonic() - asked
    measured(f"cancel, {what}", f"{took:.1f} s, no process", "≤ 10 s")
    assert took <= CANCEL_S
    history = site.act("history", job=job)
    assert all(attempt["ended"] for attempt in history["attempts"])
    assert history["result"] is None
    assert history["samples"] == 0


@pytest.mark.faults
def test_a_waiting_job(install: Install, measured: Measured) -> None:
    site = install()
    site.act("open_lab")
    (job,) = site.act("launch_samplings")
    cancel(site, job, measured, "queued")
    site.worker(engine=stand_in())
    (other,) = site.act("launch_samplings")
    site.wait_for_state(other, "succeeded", 60)  # and the cancelled one was stepped over
    assert site.act("history", job=job)["attempts"] == []


@pytest.mark.faults
@pytest.mark.parametrize("deaf", [False, True], ids=["listening", "deaf"])
def test_a_running_job(deaf: bool, install: Install, measured: Measured) -> None:
    site = install()
    site.act("open_lab")
    (job,) = site.act("launch_samplings")
    site.worker(engine=stand_in(steps=1000, step_s=0.5, deaf=deaf))
    site.wait_until(lambda: site.act("history", job=job)["metrics"], 30, "it is at work")
    cancel(site, job, measured, f"running, {'deaf to SIGTERM' if deaf else 'listening'}")


@pytest.mark.faults
def test_a_job_whose_worker_is_gone(install: Install, measured: Measured) -> None:
    """Nobody can hear it before the lease has run out and another worker has claimed the job."""
    site = install()
    site.act("open_lab")
    (job,) = site.act("launch_samplings")
    worker = site.worker(engine=stand_in(steps=1000, step_s=0.5))
    engine = site.wait_for_engine()
    worker.kill()
    site.wait_until(lambda: is_gone(engine), 10, "its child is gone")
    site.worker(engine=stand_in())
    cancel(site, job, measured, "running, its worker dead")
    assert len(site.act("history", job=job)["attempts"]) == 2


@pytest.mark.faults
def test_an_ended_job(install: Install) -> None:
    site = install()
    site.act("open_lab")
    site.worker(engine=stand_in())
    (job,) = site.act("launch_samplings")
    site.wait_for_state(job, "succeeded", 60)
    with pytest.raises(ActFailed, match="has ended already"):
        site.act("cancel", job=job)
    assert site.job(job)["state"] == "succeeded"


def written(folder: Path) -> str:
    paths = folder.glob("attempts/*/events.jsonl")
    return "".join(path.read_text(encoding="utf-8") for path in paths)


def in_phase(name: str) -> Callable[[Path], bool]:
    return lambda folder: f'"phase", "name": "{name}"' in written(folder)


#: PPO that takes long to measure, and long to roll out.
SLOW_PPO = {"updates": 50, "episodes_per_update": 16, "max_new_tokens": 200, "eval_prompts": 16}
#: What the real engine does: method, settings, and how the phase is seen in its folder.
PHASES: dict[str, tuple[str, dict[str, Any], Callable[[Path], bool]]] = {
    "it imports": ("sft", {"optim": LONG}, lambda folder: any(folder.glob("attempts/*/log.txt"))),
    "it loads": ("sft", {"optim": LONG}, in_phase("load")),
    "it trains": ("sft", {"optim": LONG}, in_phase("train")),
    "it measures": ("ppo", {"ppo": SLOW_PPO}, in_phase("measure")),
    "it rolls out": ("ppo", {"ppo": {**SLOW_PPO, "eval_prompts": 1}}, in_phase("train")),
    "it samples": ("sample", {}, in_phase("sample")),
}


@pytest.mark.faults
@pytest.mark.parametrize("phase", PHASES)
def test_the_engine_in_every_phase(
    phase: str, install: Install, tiny: str, measured: Measured
) -> None:
    method, settings, seen = PHASES[phase]
    site = install()
    site.act("open_lab", base=tiny, prompts=40)
    site.worker()
    if method == "sample":
        asked = {"sample": {"samples_per_prompt": 8, "max_new_tokens": 200}}
        site.act("launch_samplings", config=asked)
    else:
        short = {"optim": {"max_steps": 1}}
        site.act("launch_round", method=method, config={"reward": short, "policy": settings})
    wanted = {"sample": "", "sft": "policy", "ppo": "policy"}[method]

    def at_work() -> dict[str, Any] | None:
        return next((row for row in site.act("jobs") if row["stage"] == wanted), None)

    row = site.wait_until(at_work, 90, "its stage has come")
    site.wait_until(lambda: seen(site.runs / row["folder"]), 60, phase)
    cancel(site, row["id"], measured, f"while {phase}")
    assert site.job(row["id"])["round"] == (None if method == "sample" else "cancelled")
