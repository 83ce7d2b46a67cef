"""A run that was killed or stopped anywhere ends with the weights of one that never was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers.models.llama.modeling_llama import LlamaModel

from tests.engine.interrupting import terminated_in
from tests.engine.tiny import assistant, events, make_run, preference_row, result, user
from training.engine import steps
from training.engine.__main__ import main
from training.engine.files import sha256_of_file

PAIRS = [preference_row(n) for n in range(10)]
HELD_OUT = [preference_row(n) for n in range(100, 106)]
PROMPTS = [{"id": str(n), "prompt": user(f"Question number {n}?")} for n in range(6)]
CONVERSATIONS = [
    {"id": str(n), "messages": user(f"q {n}") + assistant("yes indeed")} for n in range(10)
]
OPTIM = {"lr": 5e-3, "batch_size": 4, "epochs": 2}
WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def reward_adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs") / "reward"
    make_run(folder, asked("reward", tiny, every=0), train=PAIRS)
    assert main(["run", str(folder)]) == 0
    return str(folder / "adapter")


def asked(method: str, tiny: Path, *, every: int = 1, reward: str = "", **more: Any) -> Any:
    config = {"method": method, "base": {"source": str(tiny)}, "optim": OPTIM}
    config |= {"threads": 1, "checkpoint_every": every, "checkpoint_keep": 0, **more}
    if method == "sft":
        # dropout draws from torch's own generator, which a checkpoint must hold too
        config["adapter"] = {"dropout": 0.3}
    if method == "ppo":
        config["optim"] = {"lr": 5e-3, "schedule": "constant"}
        config["ppo"] = {
            "reward_adapter": reward,
            "updates": 4,
            "episodes_per_update": 4,
            "minibatch_size": 2,
            "epochs": 2,
            "max_new_tokens": 6,
            "eval_prompts": 3,
        }
    return config


def files(method: str) -> dict[str, list[dict[str, Any]]]:
    if method == "sft":
        return {"train": CONVERSATIONS}
    return {"prompts": PROMPTS} if method == "ppo" else {"train": PAIRS, "test": HELD_OUT}


def curve(folder: Path) -> dict[int, dict[str, float]]:
    return {e["step"]: e["values"] for e in events(folder) if e["kind"] == "metrics"}


def killed_after(whole: Path, step: int, folder: Path) -> Path:
    """What is left of `whole` when its process dies right behind the checkpoint of `step`."""
    made = ("adapter", "model", "result.json", "samples.jsonl")
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns(*made))
    (attempt,) = (folder / "attempts").glob("*/")
    kept = []
    for line in (attempt / "events.jsonl").read_text(encoding="utf-8").splitlines(True):
        kept.append(line)
        event = json.loads(line)
        if event["kind"] == "checkpoint" and event["step"] == step:
            break
    (attempt / "events.jsonl").write_text("".join(kept), encoding="utf-8")
    for checkpoint in (attempt / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    return folder


@pytest.mark.parametrize("method", ["sft", "reward", "dpo", "ppo"])
def test_killed_at_the_first_a_middle_or_the_last_step_it_ends_the_same(
    method: str, tiny: Path, reward_adapter: str, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    make_run(whole, asked(method, tiny, reward=reward_adapter), **files(method))
    assert main(["run", str(whole)]) == 0
    assert sorted(curve(whole)) == list(range(1, max(curve(whole)) + 1))
    steps = [e["step"] for e in events(whole) if e["kind"] == "checkpoint"]
    assert steps == list(range(1, 17 if method == "ppo" else 7))
    # in PPO's 16 steps of 4 updates: inside one, at the end of one, after a whole pass of one
    for step in (1, 8, 14, 16) if method == "ppo" else (1, 3, 6):
        cut = killed_after(whole, step, tmp_path / f"cut-{step}")
        assert main(["run", str(cut)]) == 0, result(cut)["reason"]
        assert [e["step"] for e in events(cut) if e["kind"] == "resumed"] == [step]
        assert (cut / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
        assert curve(cut) == curve(whole)
        assert result(cut)["metrics"] == result(whole)["metrics"]
        assert result(cut)["steps"] == result(whole)["steps"]


def test_heads_the_parameter_of_ties_and_the_scale_go_on_where_they_were(
    tiny: Path, tmp_path: Path
) -> None:
    section = {"ensemble": 2, "conservative": 1.0, "normalize": "mean_std", "ties": "davidson"}
    tied = [row | {"tie": True, "probability": 0.5} for row in PAIRS[:4]]
    weighted = [row | {"weight": 1.0 + number} for number, row in enumerate(PAIRS[4:])]
    whole = make_run(
        tmp_path / "whole", asked("reward", tiny) | {"reward": section}, train=tied + weighted
    )
    assert main(["run", str(whole)]) == 0
    assert len({values["reward/tie_parameter"] for values in curve(whole).values()}) == 6
    for step in (1, 4, 6):
        cut = killed_after(whole, step, tmp_path / f"cut-{step}")
        assert main(["run", str(cut)]) == 0, result(cut)["reason"]
        for name in (WEIGHTS, "adapter/reward_scale.json"):
            assert (cut / name).read_bytes() == (whole / name).read_bytes()
        assert curve(cut) == curve(whole)
        assert result(cut)["metrics"] == result(whole)["metrics"]


def terminate_when(folder: Path, seen: Callable[[list[dict[str, Any]]], bool], times: int) -> None:
    """SIGTERM to this process, once `seen` is true of the run's events."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if seen(events(folder)):
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGTERM)
                return
        except ValueError:
            pass  # a line was half written
        time.sleep(0.005)


def phase(name: str) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda seen: any(e["kind"] == "phase" and e["name"] == name for e in seen)


@pytest.mark.parametrize(
    ("method", "when", "times"),
    [
        ("reward", "train", 1),
        ("reward", "train", 5),
        ("reward", "evaluate", 1),
        ("dpo", "reference", 1),
        ("dpo", "evaluate", 1),
        ("ppo", "measure", 1),
        ("ppo", "train", 1),
        ("ppo", "evaluate", 1),
    ],
)
def test_stopped_by_a_signal_in_any_phase_it_goes_on_and_ends_the_same(
    method: str, when: str, times: int, tiny: Path, reward_adapter: str, tmp_path: Path
) -> None:
    # rows enough that every phase outlasts the delivery of a signal
    data = files(method)
    if "test" in data:
        data["test"] = [preference_row(n) for n in range(100, 220)]
    config = asked(method, tiny, every=0, reward=reward_adapter, row_budget=128)
    if method == "ppo":
        data["prompts"] = [
            {"id": str(n), "prompt": user(f"Question number {n}?")} for n in range(40)
        ]
        config["ppo"] |= {"eval_prompts": 40, "updates": 2}
    whole = make_run(tmp_path / "whole", config, **data)
    assert main(["run", str(whole)]) == 0
    cut = make_run(tmp_path / "cut", config, **data)
    sender = threading.Thread(target=terminate_when, args=(cut, phase(when), times))
    sender.start()
    assert main(["run", str(cut)]) == 75
    sender.join()
    assert not (cut / "result.json").exists()
    assert main(["run", str(cut)]) == 0
    assert (cut / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert curve(cut) == curve(whole)
    assert result(cut)["metrics"] == result(whole)["metrics"]


@pytest.mark.parametrize("method", ["sft", "reward", "dpo", "ppo"])
def test_a_signal_between_two_groups_of_a_step_drops_the_step_and_ends_the_same(
    method: str, tiny: Path, reward_adapter: str, tmp_path: Path
) -> None:
    # rows so short of room that a step is several passes; the signal comes in the middle of one
    changes: dict[str, Any] = {"every": 0, "reward": reward_adapter, "row_budget": 64}
    whole = make_run(tmp_path / "whole", asked(method, tiny, **changes), **files(method))
    assert main(["run", str(whole)]) == 0
    cut = make_run(tmp_path / "cut", asked(method, tiny, **changes), **files(method))
    stops = []
    for number in (1, 3, 6, 7):
        with terminated_in(number, LlamaModel):
            assert main(["run", str(cut)]) == 75
        stops.append(max([e["step"] for e in events(cut) if e["kind"] == "checkpoint"], default=0))
    assert stops == sorted(stops)
    assert stops[0] == 0, "the first step has several groups, and was dropped"
    assert stops[-1] >= 3
    assert main(["run", str(cut)]) == 0
    assert [e for e in events(cut) if e["kind"] == "resumed"]
    assert (cut / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert curve(cut) == curve(whole)
    assert result(cut)["metrics"] == result(whole)["metrics"]


def test_a_stop_inside_an_update_keeps_its_rollouts(
    tiny: Path, reward_adapter: str, tmp_path: Path
) -> None:
    config = asked("ppo", tiny, every=3, reward=reward_adapter)
    config["ppo"] |= {"kl_target": 0.5, "kl_horizon": 40, "normalize_rewards": True}
    whole = make_run(tmp_path / "whole", config, prompts=PROMPTS)
    assert main(["run", str(whole)]) == 0
    first = curve(whole)
    assert len({values["kl/coef"] for values in first.values()}) == 4
    assert all(values["reward/scale"] > 0 for values in first.values())
    # step 6 of 16: the second update of 4 minibatches, two of them done
    cut = killed_after(whole, 6, tmp_path / "cut")
    (state,) = cut.glob("attempts/*/checkpoints/step-00000006/state.json")
    position = json.loads(state.read_text(encoding="utf-8"))
    assert (position["update"], position["minibatches"]) == (1, 2)
    assert position["scale"]["count"] == 8
    assert main(["run", str(cut)]) == 0
    assert (cut / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert curve(cut) == curve(whole)


def test_an_attempt_keeps_its_newest_checkpoints_and_leaves_others_alone(
    tiny: Path, tmp_path: Path
) -> None:
    config = asked("dpo", tiny) | {"checkpoint_keep": 2}
    whole = make_run(tmp_path / "whole", config, train=PAIRS)
    assert main(["run", str(whole), "--attempt", "one"]) == 0
    folder = whole / "attempts" / "one" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000005", "step-00000006"]
    removed = [e["step"] for e in events(whole) if e["kind"] == "checkpoint_removed"]
    assert removed == [1, 2, 3, 4]
    for left in ("result.json", "adapter"):
        (whole / left).unlink()
    shutil.rmtree(folder / "step-00000006")
    assert main(["run", str(whole), "--attempt", "two"]) == 0
    assert [path.name for path in folder.iterdir()] == ["step-00000005"]


def test_a_checkpoint_says_what_it_is_of(tiny: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", asked("dpo", tiny, every=6), train=PAIRS)
    assert main(["run", str(folder), "--attempt", "one"]) == 0
    (event,) = (e for e in events(folder) if e["kind"] == "checkpoint")
    path = folder / event["path"]
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    assert event["path"] == "attempts/one/checkpoints/step-00000006"
    assert event["sha256"] == sha256_of_file(path / "manifest.json")
    assert event["bytes"] == sum(file.stat().st_size for file in path.iterdir())
    assert (manifest["attempt"], manifest["step"]) == ("one", 6)
    inputs = folder / "attempts" / "inputs.json"
    assert manifest["inputs_sha256"] == sha256_of_file(inputs)
    assert manifest["data_sha256"] == result(folder)["data_sha256"]
    for name, facts in manifest["files"].items():
        assert facts["sha256"] == sha256_of_file(path / name)


def test_evaluation_and_sampling_stop_for_a_signal_and_start_again(
    tiny: Path, reward_adapter: str, tmp_path: Path
) -> None:
    config = {
        "method": "evaluate",
        "base": {"source": str(tiny)},
        "row_budget": 128,
        "evaluate": {"reward_adapter": reward_adapter},
    }
    rows = [preference_row(n) for n in range(150)]
    cut = make_run(tmp_path / "cut", config, test=rows)
    sender = threading.Thread(target=terminate_when, args=(cut, phase("reward"), 1))
    sender.start()
    assert main(["run", str(cut)]) == 75
    sender.join()
    assert main(["run", str(cut)]) == 0
    assert result(cut)["rows"] == 150


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(
    tiny: Path, tmp_path: Path
) -> None:
    whole = make_run(tmp_path / "whole", asked("dpo", tiny), train=PAIRS)
    assert main(["run", str(whole)]) == 0
    damages: dict[str, Callable[[Path], Any]] = {
        "cut short": lambda path: os.truncate(path / "tensors.safetensors", 100),
        "no manifest": lambda path: (path / "manifest.json").unlink(),
        "manifest of another shape": lambda path: (path / "manifest.json").write_text("[1]"),
        "no files named": lambda path: (path / "manifest.json").write_text(
            json.dumps(json.loads((path / "manifest.json").read_text()) | {"files": {}})
        ),
    }
    for name, damage in damages.items():
        cut = killed_after(whole, 3, tmp_path / name)
        (newest,) = cut.glob("attempts/*/checkpoints/step-00000003")
        damage(newest)
        assert main(["run", str(cut)]) == 0, (name, result(cut)["reason"])
        (warning,) = (e for e in events(cut) if e["kind"] == "warning")
        assert warning["code"] == "checkpoint_skipped"
        assert "step-00000003" in warning["message"]
        assert [e["step"] for e in events(cut) if e["kind"] == "resumed"] == [2]
        assert (cut / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_the_same_attempt_replaces_its_own_damaged_checkpoint(tiny: Path, tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", asked("dpo", tiny), train=PAIRS)
    assert main(["run", str(whole), "--attempt", "one"]) == 0
    cut = killed_after(whole, 3, tmp_path / "cut")
    tensors = cut / "attempts/one/checkpoints/step-00000003/tensors.safetensors"
    good = tensors.read_bytes()
    os.truncate(tensors, 100)
    log = cut / "attempts/one/events.jsonl"
    log.write_text(log.read_text(encoding="utf-8") + '{"seq": 99, "at', encoding="utf-8")
    assert main(["run", str(cut), "--attempt", "one"]) == 0
    assert tensors.read_bytes() == good
    lines = log.read_text(encoding="utf-8").splitlines()
    torn = lines.index('{"seq": 99, "at')
    assert all(json.loads(line) for line in lines[:torn] + lines[torn + 1 :])


def test_the_clock_asks_for_checkpoints_too(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = asked("dpo", tiny, every=0, checkpoint_every_s=1e-6)
    monkeypatch.setattr(steps, "SAVING_SHARE", 0)
    whole = make_run(tmp_path / "whole", config, train=PAIRS)
    assert main(["run", str(whole)]) == 0
    saved = [event["step"] for event in events(whole) if event["kind"] == "checkpoint"]
    assert saved == list(range(1, max(curve(whole)) + 1))
    quiet = make_run(tmp_path / "quiet", config | {"checkpoint_every_s": 0.0}, train=PAIRS)
    assert main(["run", str(quiet)]) == 0
    assert not [event for event in events(quiet) if event["kind"] == "checkpoint"]
    assert (quiet / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
