"""Killed at any instant, any number of times, a run ends with the bytes of one that never was."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import assistant, make_run, preference_row, result, save_tiny, user
from tests.faults import warm_engine
from tests.faults.operations import NO_FAULT, Fault, operations

PAIRS = [preference_row(n) for n in range(10)]
HELD_OUT = [preference_row(n) for n in range(100, 104)]
PROMPTS = [{"id": str(n), "prompt": user(f"Question number {n}?")} for n in range(6)]
CONVERSATIONS = [
    {"id": str(n), "messages": user(f"q {n}") + assistant("yes indeed")} for n in range(10)
]
METHODS = ("sft", "reward", "dpo", "ppo")
#: Kills of one run in a row, and of all runs of a method.
IN_A_ROW, KILLS = 5, 20


class Matrix:
    """A base, a cache, a reward adapter, and one uninterrupted run of each kind to compare with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.tiny = save_tiny(folder / "tiny")
        self._whole: dict[str, Path] = {}

    def whole(self, method: str, **changes: Any) -> Path:
        """The run that nothing interrupted."""
        key = hashlib.sha256(json.dumps([method, changes]).encode()).hexdigest()[:12]
        if key not in self._whole:
            folder = self.make(f"{method}-{key}", method, **changes)
            status = warm_engine.finish(folder, "whole", self.cache, fault=NO_FAULT)
            assert status == 0, warm_engine.log_of(folder)
            self._whole[key] = folder
        return self._whole[key]

    def make(self, name: str, method: str, **changes: Any) -> Path:
        """A fresh run folder."""
        config: dict[str, Any] = {
            "method": method,
            "threads": 1,
            "base": {"source": str(self.tiny)},
            "optim": {"lr": 5e-3, "batch_size": 4, "epochs": 8},
            "row_budget": 64,  # several groups of rows in a step
            "checkpoint_every": 2,
        }
        data: dict[str, Any] = {"train": PAIRS, "test": HELD_OUT}
        if method == "sft":
            config["adapter"] = {"dropout": 0.3}  # draws from torch's own generator
            data = {"train": CONVERSATIONS}
        if method == "ppo":
            config |= {"checkpoint_every": 3, "optim": {"lr": 5e-3, "schedule": "constant"}}
            config["ppo"] = {
                "reward_adapter": str(
                    self.whole("reward") / result(self.whole("reward"))["adapter"]
                ),
                "updates": 6,
                "episodes_per_update": 4,
                "minibatch_size": 2,
                "epochs": 2,
                "max_new_tokens": 6,
                "eval_prompts": 3,
                "kl_target": 0.5,
                "kl_horizon": 40,
                "normalize_rewards": True,
            }
            data = {"prompts": PROMPTS}
        for section, values in changes.items():
            merged = isinstance(values, dict) and section in config
            config[section] = config[section] | values if merged else values
        return make_run(self.folder / "runs" / name, config, **data)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return Matrix(tmp_path_factory.mktemp("kill-matrix"))


def lines_of(folder: Path, attempt: str) -> list[dict[str, Any]]:
    """An attempt's events; a line that its end cut is none."""
    path = folder / "attempts" / attempt / "events.jsonl"
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(True) if line.endswith("\n")]


def curve(folder: Path, attempts: list[str]) -> dict[tuple[str, int], float]:
    """The points of all attempts, the later one where two wrote the same; each writes it once."""
    points: dict[tuple[str, int], float] = {}
    for attempt in attempts:
        events = [e for e in lines_of(folder, attempt) if e["kind"] == "metrics"]
        own = [((name, e["step"]), value) for e in events for name, value in e["values"].items()]
        assert len(own) == len(dict(own)), f"{attempt} wrote a point twice"
        points |= dict(own)
    return points


def weights(folder: Path) -> bytes:
    adapter: str = result(folder)["adapter"]
    return (folder / adapter / "adapter_model.safetensors").read_bytes()


def expect_same(folder: Path, attempts: list[str], whole: Path) -> None:
    assert weights(folder) == weights(whole)
    assert curve(folder, attempts) == curve(whole, ["whole"])
    for key in ("status", "metrics", "steps", "rows"):
        assert result(folder)[key] == result(whole)[key]


def visible_checkpoints(folder: Path) -> dict[int, Path]:
    """Every checkpoint under its final name, proven whole from outside the engine."""
    found = {}
    for path in folder.glob("attempts/*/checkpoints/step-*"):
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        assert {each.name for each in path.iterdir()} == {"manifest.json", *manifest["files"]}
        for name, facts in manifest["files"].items():
            held = (path / name).read_bytes()
            assert (len(held), hashlib.sha256(held).hexdigest()) == (
                facts["bytes"],
                facts["sha256"],
            )
        found[int(path.name.removeprefix("step-"))] = path
    return found


def killed_at_random(matrix: Matrix, method: str, kills: int, seed: int, **changes: Any) -> None:
    """Runs killed up to five times in a row at drawn instants, until so many kills have hit."""
    draw = random.Random(f"{method} {seed}")
    whole = matrix.whole(method, **changes)
    hit = trial = 0
    while hit < kills:
        folder = matrix.make(f"{method}-{seed}-{trial}-killed", method, **changes)
        attempts: list[str] = []
        for _ in range(min(IN_A_ROW, kills - hit)):
            attempts.append(f"a{len(attempts)}")
            child = warm_engine.start(folder, attempts[-1], matrix.cache)
            # one in five while it still loads or measures, the others while it trains
            phase = draw.choice(["load", "train", "train", "train", "train"])
            ready = has_lines_in(folder, attempts[-1], phase, draw.randint(1, 14))
            delay_s = draw.choice([0.0, draw.uniform(0.0, 0.05)])
            hit += warm_engine.kill_when(child, ready, delay_s)
            visible_checkpoints(folder)
            if (folder / "result.json").exists():
                break
        if not (folder / "result.json").exists():
            attempts.append("last")
            assert warm_engine.finish(folder, "last", matrix.cache) == 0, warm_engine.log_of(folder)
        expect_same(folder, attempts, whole)
        trial += 1
        assert trial < 3 * kills, "most kills came too late"


def has_lines_in(folder: Path, attempt: str, phase: str, count: int) -> Callable[[], bool]:
    """Whether an attempt has written so many lines from the beginning of a phase on."""

    def ready() -> bool:
        lines = lines_of(folder, attempt)
        begins = [i for i, e in enumerate(lines) if e["kind"] == "phase" and e["name"] == phase]
        return bool(begins) and len(lines) - begins[0] >= count

    return ready


@pytest.mark.parametrize("method", METHODS)
def test_killed_twice_it_ends_the_same(matrix: Matrix, method: str) -> None:
    killed_at_random(matrix, method, kills=2, seed=0)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", METHODS)
def test_killed_at_twenty_random_instants_it_ends_the_same(matrix: Matrix, method: str) -> None:
    killed_at_random(matrix, method, kills=KILLS, seed=1)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", ["dpo", "ppo"])
def test_killed_in_four_bits_it_ends_the_same(matrix: Matrix, method: str) -> None:
    killed_at_random(matrix, method, kills=IN_A_ROW, seed=2, base={"quantization": "nf4"})


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", ["sft", "dpo", "ppo"])
def test_killed_at_every_file_operation_of_a_checkpoint_it_ends_the_same(
    matrix: Matrix, method: str
) -> None:
    # every attempt writes one checkpoint and dies in its second, one operation later each time;
    # keeping one, the second also removes the first
    changes: dict[str, Any] = {"checkpoint_every": 1, "checkpoint_keep": 1}
    changes |= {"optim": {"lr": 1e-3, "schedule": "constant", "batch_size": 1, "epochs": 10}}
    if method == "ppo":
        changes |= {"ppo": {"updates": 25}}
    whole = matrix.whole(method, **changes)
    count = operations(whole, "checkpoint", 3)
    assert count > 33, "a hundred kills in three methods"
    folder = matrix.make(f"{method}-operations", method, **changes)
    attempts: list[str] = []
    expected = 0
    for operation in range(1, count + 1):
        attempts.append(f"a{operation:03d}")
        fault = Fault("checkpoint", 2, operation)
        status = warm_engine.finish(folder, attempts[-1], matrix.cache, fault=fault)
        assert status == -9, warm_engine.log_of(folder)
        expect_resumed(folder, attempts[-1], expected)
        expected = max(visible_checkpoints(folder))
    attempts.append("last")
    assert warm_engine.finish(folder, "last", matrix.cache) == 0, warm_engine.log_of(folder)
    expect_resumed(folder, "last", expected)
    expect_same(folder, attempts, whole)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", ["adapter", "result"])
def test_killed_at_every_file_operation_of_the_end_it_ends_the_same(
    matrix: Matrix, what: str
) -> None:
    whole = matrix.whole("reward")
    for operation in range(1, operations(whole, what, 1) + 1):
        folder = matrix.make(f"{what}-{operation}", "reward")
        status = warm_engine.finish(folder, "a", matrix.cache, fault=Fault(what, 1, operation))
        assert status == -9, warm_engine.log_of(folder)
        attempts = ["a"]
        if not (folder / "result.json").exists():
            attempts.append("b")
            assert warm_engine.finish(folder, "b", matrix.cache) == 0, warm_engine.log_of(folder)
        expect_same(folder, attempts, whole)


def expect_resumed(folder: Path, attempt: str, step: int) -> None:
    """It went on from the newest checkpoint under a final name, and found none to be skipped."""
    events = lines_of(folder, attempt)
    assert [e["step"] for e in events if e["kind"] == "resumed"] == ([step] if step else [])
    assert not [e for e in events if e.get("code") == "checkpoint_skipped"]


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def killed_behind(matrix: Matrix, name: str, step: int) -> Path:
    """A DPO run that was killed behind the checkpoint of `step`; made once, then copied."""
    folder = matrix.folder / "runs" / "behind"
    if not folder.exists():
        folder = matrix.make("behind", "dpo")
        status = warm_engine.finish(
            folder, "first", matrix.cache, fault=Fault("checkpoint", step // 2 + 1, 1)
        )
        assert status == -9
        assert sorted(visible_checkpoints(folder)) == [step - 2, step]
    return Path(shutil.copytree(folder, matrix.folder / "runs" / name))


@pytest.mark.parametrize("damage", [flipped, cut, emptied])
@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    matrix: Matrix, file: str, damage: Callable[[Path], None]
) -> None:
    folder = killed_behind(matrix, f"{damage.__name__}-{file}", 6)
    damage(visible_checkpoint(folder, 6) / file)
    assert warm_engine.finish(folder, "second", matrix.cache) == 0
    events = lines_of(folder, "second")
    (skipped,) = [e["message"] for e in events if e.get("code") == "checkpoint_skipped"]
    assert skipped.startswith("attempts/first/checkpoints/step-00000006: ")
    assert [e["step"] for e in events if e["kind"] == "resumed"] == [4]
    expect_same(folder, ["first", "second"], matrix.whole("dpo"))


def visible_checkpoint(folder: Path, step: int) -> Path:
    return folder / f"attempts/first/checkpoints/step-{step:08d}"


PICKLE = b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("optimizer.pt", PICKLE),
        ("rng_state.pth", b"anything"),
        ("tensors.safetensors", PICKLE),
        ("tensors.safetensors", b"PK\x03\x04 as torch.save begins"),
        ("state.json", PICKLE),
    ],
)
def test_a_pickle_in_a_checkpoint_is_refused_by_name_and_not_opened(
    matrix: Matrix, file: str, content: bytes
) -> None:
    folder = killed_behind(matrix, f"pickle-{file}-{len(content)}", 6)
    checkpoint = visible_checkpoint(folder, 6)
    (checkpoint / file).write_bytes(content)
    # whoever planted it would make the manifest agree
    manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest["files"][file] = facts
    (checkpoint / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert warm_engine.finish(folder, "second", matrix.cache) == 0
    events = lines_of(folder, "second")
    (skipped,) = [e["message"] for e in events if e.get("code") == "checkpoint_skipped"]
    assert f"{file} looks like a pickle" in skipped
    expect_same(folder, ["first", "second"], matrix.whole("dpo"))


@pytest.mark.parametrize("damage", [flipped, cut, emptied])
@pytest.mark.parametrize("file", ["train.jsonl", "test.jsonl"])
def test_a_damaged_dataset_is_named_and_never_trained_on(
    matrix: Matrix, file: str, damage: Callable[[Path], None]
) -> None:
    folder = killed_behind(matrix, f"{damage.__name__}-{file}", 6)
    damage(folder / "data" / file)
    assert warm_engine.finish(folder, "second", matrix.cache) == 1
    assert result(folder)["status"] == "refused"
    assert f"data/{file} has changed since the run began" in result(folder)["reason"]
    assert not [e for e in lines_of(folder, "second") if e["kind"] in ("resumed", "metrics")]
