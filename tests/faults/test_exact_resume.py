"""Each method's engine is killed three times under a real worker, and ends as if it never was."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Install, Measured
from tests.faults.installation import REPOSITORY, Installation, late_rows, newest_points, points

KILLS = 3
WEIGHTS = "adapter_model.safetensors"
OPTIM = {"lr": 5e-3, "batch_size": 2, "epochs": 8}
EVERY = {"checkpoint_every": 1}
#: A round by PPO trains the first three, one by DPO the last, each with a checkpoint every step.
PPO_ROUND = {
    "sft": {"optim": OPTIM, **EVERY},
    "reward": {"optim": OPTIM, **EVERY},
    "policy": {
        "optim": {"lr": 5e-3, "schedule": "constant"},
        "ppo": {"updates": 16, "episodes_per_update": 4, "minibatch_size": 2, "max_new_tokens": 8},
        **EVERY,
    },
}
DPO_ROUND = {"policy": {"optim": OPTIM, **EVERY}}


def stage_at_work(site: Installation, stage: str, round: int) -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        return next(
            (
                row
                for row in site.act("jobs")
                if row["stage"] == stage and row["folder"].startswith(f"round-{round}/")
            ),
            None,
        )

    return site.wait_until(there, 90, f"stage {stage} of round {round} has come")


def newest_step(folder: Path) -> int:
    found = folder.glob("attempts/*/checkpoints/step-*")
    return max((int(path.name.removeprefix("step-")) for path in found), default=0)


def kill_three_times(site: Installation, row: dict[str, Any], chance: random.Random) -> list[int]:
    """SIGKILL the engine at steps drawn by chance, each beyond the last; the steps."""
    folder = site.runs / row["folder"]
    killed: list[int] = []
    for _ in range(KILLS):
        wanted = newest_step(folder) + chance.randint(1, 3)
        site.wait_until(lambda w=wanted: newest_step(folder) >= w, 60, f"step {wanted}")
        (engine,) = site.engines()
        engine.send_signal(signal.SIGKILL)
        engine.wait(10)
        killed.append(newest_step(folder))
    return killed


def undisturbed(folder: Path, copy: Path) -> Path:
    """The same config and data through the engine's own command line, in peace."""
    copy.mkdir()
    shutil.copy(folder / "config.json", copy)
    shutil.copytree(folder / "data", copy / "data")
    done = subprocess.run(
        [sys.executable, "-m", "training.engine", "run", str(copy)],
        env={**os.environ, "ENGINE_CACHE_DIR": str(copy / "cache")},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return copy


def curve(folder: Path) -> dict[tuple[str, int], float]:
    """Every point that a run of one attempt wrote."""
    (path,) = folder.glob("attempts/*/events.jsonl")
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        (name, event["step"]): value
        for event in events
        if event["kind"] == "metrics"
        for name, value in event["values"].items()
    }


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_killed_thrice_each_method_ends_with_the_same_bytes(
    install: Install, tiny: str, tmp_path: Path, measured: Measured
) -> None:
    site = install()
    site.act("open_lab", base=tiny)
    site.worker()
    chance = random.Random(20261125)
    first = site.act("launch_round", method="ppo", config=PPO_ROUND)
    rows = {}
    for method, stage in (("sft", "sft"), ("reward", "reward"), ("ppo", "policy")):
        rows[method] = stage_at_work(site, stage, first)
        rows[method]["killed"] = kill_three_times(site, rows[method], chance)
        site.wait_for_state(rows[method]["id"], "succeeded", 120)
    site.act("cancel", job=stage_at_work(site, "evaluate", first)["id"])
    second = site.act("launch_round", method="dpo", config=DPO_ROUND, reuse_reward=True)
    rows["dpo"] = stage_at_work(site, "policy", second)
    rows["dpo"]["killed"] = kill_three_times(site, rows["dpo"], chance)
    site.wait_for_state(rows["dpo"]["id"], "succeeded", 120)
    for method, row in rows.items():
        folder = site.runs / row["folder"]
        whole = undisturbed(folder, tmp_path / method)
        history = site.act("history", job=row["id"])
        same = (folder / "adapter" / WEIGHTS).read_bytes() == (
            whole / "adapter" / WEIGHTS
        ).read_bytes()
        killed = ", ".join(str(step) for step in row["killed"])
        words = "equal bytes" if same else "other bytes"
        measured(f"SIGKILL of {method} at steps {killed}", words, "equal; no gap in its curves")
        assert same, method
        stored = {key: value for key, (_, value) in points(history).items()}
        assert stored == curve(whole), method
        assert points(history) == newest_points(history)
        assert late_rows(history) == 0
        assert len(history["attempts"]) == KILLS + 1
        assert [event["kind"] for event in history["events"]].count("resumed") == KILLS
        assert history["output"] is not None
