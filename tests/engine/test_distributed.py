"""Several processes at one run, over gloo: the curve and the weights of one process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.engine import one_of_several
from tests.engine.test_resume import PAIRS, asked, curve, files
from tests.engine.tiny import events, make_run, result
from training.engine import distributed
from training.engine.__main__ import main

#: Rounding: the same sums in another order, in fp32.
TOLERANCE = 1e-5
#: What is 0 or 1 by a margin's sign is no smooth figure: at step 0 every margin is rounding.
BY_SIGN = ("dpo/accuracy", "reward/accuracy")
METHODS = ("sft", "reward", "dpo", "ppo")


def settings(method: str, tiny: Path, reward: str, **more: Any) -> dict[str, Any]:
    config = asked(method, tiny, every=1, reward=reward, **more)
    config.pop("adapter", None)  # no dropout: each process would draw its own
    return dict(config)


def together(
    folders: list[Path], size: int = 2, trouble: str = ""
) -> list[subprocess.CompletedProcess[str]]:
    """What each of `size` processes ended with, which did these runs side by side."""
    named = one_of_several.with_ports(folders)
    processes = [
        subprocess.Popen(
            one_of_several.command(rank, size, named),
            env={**os.environ, "TROUBLE": trouble},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    ended = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=200)
            ended.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    finally:
        for process in processes:
            process.kill()  # one that waits for the other; SIGTERM is heard between steps alone
    return ended


@pytest.fixture(scope="module")
def alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each method's run, done by one process."""
    folder = tmp_path_factory.mktemp("alone")
    reward = str(folder / "reward" / "adapter")
    runs = {}
    for method in ("reward", *(name for name in METHODS if name != "reward")):
        runs[method] = folder / method
        make_run(runs[method], settings(method, tiny, reward), **files(method))
        assert main(["run", str(runs[method])]) == 0
    return runs


def assert_same(one: Path, other: Path) -> None:
    mine, theirs = curve(one), curve(other)
    assert mine.keys() == theirs.keys()
    for step, values in mine.items():
        compared = {k: v for k, v in values.items() if k not in BY_SIGN}
        assert compared == pytest.approx(
            {k: v for k, v in theirs[step].items() if k not in BY_SIGN}, abs=TOLERANCE
        ), step
    weights = [load_file(run / "adapter" / "adapter_model.safetensors") for run in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    worst = max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0])
    assert worst < TOLERANCE


def test_two_processes_train_what_one_does(
    alone: dict[str, Path], tiny: Path, tmp_path: Path
) -> None:
    reward = str(alone["reward"] / "adapter")
    runs = {method: tmp_path / method for method in METHODS}
    for method, folder in runs.items():
        make_run(folder, settings(method, tiny, reward), **files(method))
    # a batch of one row leaves the other process nothing to do
    small = settings("dpo", tiny, "", optim={"lr": 5e-3, "batch_size": 1, "max_steps": 3})
    one, two = (make_run(tmp_path / name, small, train=PAIRS) for name in ("one", "two"))
    # KTO's batches are TRL's
    config = {"method": "kto", "base": {"source": str(tiny)}, "optim": {"batch_size": 4}}
    kto = make_run(tmp_path / "kto", config, train=PAIRS)

    # a base in parts: uneven shares, several groups of rows in each, recomputed activations
    uneven = {"row_budget": 64, "optim": {"lr": 5e-3, "batch_size": 5, "epochs": 1}}
    uneven["gradient_checkpointing"] = True
    pairs_of = {
        name: make_run(tmp_path / name, settings("dpo", tiny, "", **uneven), **files("dpo"))
        for name in ("in-one", "parts-dpo")
    }
    parts_ppo = tmp_path / "parts-ppo"
    make_run(parts_ppo, settings("ppo", tiny, reward), **files("ppo"))

    ended = together([*runs.values(), two, kto, pairs_of["parts-dpo"], parts_ppo])
    assert [each.stdout.split() for each in ended] == [[*"00000101"]] * 2, ended
    for method, folder in runs.items():
        assert_same(alone[method], folder)
        # one process alone has written
        assert len([*folder.glob("attempts/*/")]) == 1
        assert len([event for event in events(folder) if event["kind"] == "start"]) == 1
    assert main(["run", str(one)]) == 0
    assert_same(one, two)
    assert "kto runs in one process, and 2 were started" in result(kto)["reason"]
    assert main(["run", str(pairs_of["in-one"])]) == 0
    assert_same(pairs_of["in-one"], pairs_of["parts-dpo"])
    assert "ppo needs the whole base in every process" in result(parts_ppo)["reason"]


def test_a_launcher_that_is_none_is_named(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_run(tmp_path / "run", settings("dpo", tiny, ""), train=PAIRS)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert main(["run", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "RANK, MASTER_ADDR, MASTER_PORT are not set" in said
    assert "torchrun" in said


def test_shares_are_even_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = [7, 1, 5, 5, 2, 9, 1, 3]
    monkeypatch.setattr(distributed, "size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda own=rank: own)
        shares.append(distributed.share(costs))
    assert sorted(item for own in shares for item in own) == [*range(len(costs))]
    assert [sum(costs[item] for item in own) for own in shares] == [11, 11, 11]
