"""Attempts at one run: what binds them to the same inputs, and which of them ends it."""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.tiny import events, make_run, preference_row, result, save_tiny, user
from training.engine import inputs
from training.engine.__main__ import give_up, main, publish
from training.engine.causes import cause_of
from training.engine.config import BaseConfig
from training.engine.rundir import RunDir, publish_result

PAIRS = [preference_row(n) for n in range(6)]
HELD_OUT = [preference_row(n) for n in range(100, 103)]
PROMPTS = [{"id": str(n), "prompt": user(f"Question number {n}?")} for n in range(3)]
NOTHING: dict[str, Any] = {"steps": 0, "rows": 0, "metrics": {}}


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "sft", asked(tiny), train=PAIRS)
    assert main(["run", str(folder)]) == 0
    return folder / "adapter"


def asked(base: Path, **more: Any) -> dict[str, Any]:
    optim = {"lr": 5e-3, "batch_size": 2}
    return {"method": "dpo", "base": {"source": str(base)}, "optim": optim, **more}


def begun(folder: Path, config: dict[str, Any], **files: list[dict[str, Any]]) -> Path:
    """A run whose first attempt ended without a result, as a killed one does."""
    make_run(folder, config, **files)
    assert main(["run", str(folder), "--attempt", "first"]) == 0
    for left in ("result.json", "adapter"):
        (folder / left).unlink()
    return folder


def change_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change(config)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def refused(folder: Path) -> str:
    assert main(["run", str(folder), "--attempt", "second"]) == 1
    found = result(folder)
    assert (found["status"], found["cause"], found["attempt"]) == ("refused", "refused", "second")
    assert not [e for e in events(folder) if e["kind"] == "resumed"]
    return str(found["reason"])


def test_what_a_run_was_begun_with_is_written_down(tiny: Path, tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", asked(tiny), train=PAIRS, test=HELD_OUT)
    found = json.loads((folder / "attempts" / "inputs.json").read_text(encoding="utf-8"))
    assert found["config"]["optim"]["lr"] == 5e-3
    assert sorted(found["data"]) == ["data/test.jsonl", "data/train.jsonl"]
    assert found["base"]["source"] == str(tiny)
    assert len(found["base"]["sha256"]) == 64
    assert found["threads"] == 2
    assert found["versions"]["torch"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["optim"].update(lr=0.01), "optim.lr was 0.005 and is 0.01"),
        (lambda c: c.update(threads=1), "threads was 2 and is 1"),
        (lambda c: c.update(seed=7), "seed was 0 and is 7"),
        (lambda c: c["optim"].update(max_steps=1), "optim.max_steps was null and is 1"),
        (lambda c: c.update(adapter={"target_modules": ["q_proj"]}), "adapter.target_modules was"),
    ],
)
def test_another_config_is_refused_naming_the_field(
    change: Callable[[dict[str, Any]], Any], words: str, tiny: Path, tmp_path: Path
) -> None:
    folder = begun(tmp_path / "run", asked(tiny), train=PAIRS)
    change_config(folder, change)
    assert words in refused(folder)


def test_a_field_that_says_its_default_is_no_change(tiny: Path, tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", asked(tiny), train=PAIRS)
    change_config(folder, lambda config: config.update(seed=0, dpo={"beta": 0.1}))
    assert main(["run", str(folder)]) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: (data / "train.jsonl").open("a").write("\n"), "train.jsonl has changed"),
        (lambda data: (data / "test.jsonl").unlink(), "test.jsonl is gone"),
        (lambda data: (data / "extra.jsonl").write_text("{}\n"), "extra.jsonl is new"),
    ],
)
def test_other_data_are_refused_naming_the_file(
    change: Callable[[Path], Any], words: str, tiny: Path, tmp_path: Path
) -> None:
    folder = begun(tmp_path / "run", asked(tiny), train=PAIRS, test=HELD_OUT)
    change(folder / "data")
    assert f"data/{words} since the run began" in refused(folder)


def test_another_base_in_the_same_place_is_refused(tiny: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    folder = begun(tmp_path / "run", asked(base), train=PAIRS)
    save_tiny(base, seed=1)
    assert "the base has changed since the run began" in refused(folder)


def test_a_readme_beside_the_base_is_no_change(tiny: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    folder = begun(tmp_path / "run", asked(base), train=PAIRS)
    (base / "README.md").write_text("a card", encoding="utf-8")
    assert main(["run", str(folder)]) == 0


def test_another_adapter_in_the_same_place_is_refused(
    tiny: Path, adapter: Path, tmp_path: Path
) -> None:
    own = tmp_path / "adapter"
    shutil.copytree(adapter, own)
    config = asked(tiny, adapter={"init_from": str(own)})
    folder = begun(tmp_path / "run", config, train=PAIRS)
    trained = folder / "attempts" / "first" / "adapter" / "adapter_model.safetensors"
    shutil.copy(trained, own)
    assert "the adapter of adapter.init_from has changed" in refused(folder)
    (folder / "result.json").unlink()
    shutil.rmtree(own)
    assert "the adapter of adapter.init_from is gone" in refused(folder)


def test_a_wrong_row_may_be_mended_before_the_first_step(tiny: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", asked(tiny), train=[{"id": "no pair"}])
    assert main(["run", str(folder)]) == 1
    (folder / "result.json").unlink()
    lines = "".join(json.dumps(row) + "\n" for row in PAIRS)
    (folder / "data" / "train.jsonl").write_text(lines, encoding="utf-8")
    assert main(["run", str(folder)]) == 0


def test_a_newer_layout_is_refused_as_such(tiny: Path, tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", asked(tiny), train=PAIRS)
    path = folder / "attempts" / "inputs.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(found | {"version": 9}), encoding="utf-8")
    reason = refused(folder)
    assert "has format 9, and this code knows up to 1" in reason
    assert "newer version" in reason
    (folder / "result.json").unlink()
    path.write_text(json.dumps(found), encoding="utf-8")
    change_config(folder, lambda config: config.update(schema=9, unheard_of=True))
    assert "schema is 9, and this code knows up to 1" in refused(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "config": 3}'])
def test_damaged_inputs_are_refused(text: str, tiny: Path, tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", asked(tiny), train=PAIRS)
    (folder / "attempts" / "inputs.json").write_text(text, encoding="utf-8")
    assert "inputs.json is damaged" in refused(folder)


def test_other_library_versions_are_told_and_go_on(tiny: Path, tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", asked(tiny), train=PAIRS)
    path = folder / "attempts" / "inputs.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    found["versions"]["torch"], found["machine"] = "1.0", "another machine"
    path.write_text(json.dumps(found), encoding="utf-8")
    assert main(["run", str(folder)]) == 0
    warnings = {e["code"]: e["message"] for e in events(folder) if e["kind"] == "warning"}
    assert "torch 1.0 → " in warnings["versions_changed"]
    assert "another machine" in warnings["machine_changed"]


def test_the_hub_is_asked_once_for_the_commit(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the Hub's cache as its client lays it out, with a branch that moves between two attempts
    commits = ["a" * 40, "b" * 40]
    cache = tmp_path / "hub" / "models--org--tiny"
    for number, commit in enumerate(commits):
        shutil.copytree(tiny, cache / "snapshots" / commit)
        if number:
            save_tiny(cache / "snapshots" / commit, seed=1)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commits[0], encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    config = asked(tiny) | {"base": {"source": "org/tiny"}}
    run = RunDir(make_run(tmp_path / "run", config, train=PAIRS), "first")
    inputs.compare_inputs(run)
    assert run.base == BaseConfig(source="org/tiny", revision=commits[0])
    inputs.record_inputs(run)
    (cache / "refs" / "main").write_text(commits[1], encoding="utf-8")
    again = RunDir(run.path, "second")
    inputs.compare_inputs(again)
    assert again.base == run.base


def test_the_result_names_what_its_attempt_made(tiny: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", asked(tiny), train=PAIRS)
    assert main(["run", str(folder), "--attempt", "one"]) == 0
    found = result(folder)
    assert (found["attempt"], found["cause"]) == ("one", None)
    assert found["adapter"] == "attempts/one/adapter"
    assert found["samples"] is None
    assert (folder / "adapter").readlink() == Path("attempts/one/adapter")
    assert (folder / "result.json").samefile(folder / "attempts" / "one" / "result.json")
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter", "attempts", "config.json", "data", "result.json",
    ]  # fmt: skip


def test_samples_too(tiny: Path, tmp_path: Path) -> None:
    config = {"method": "sample", "base": {"source": str(tiny)}, "sample": {"max_new_tokens": 3}}
    folder = make_run(tmp_path / "run", config, prompts=PROMPTS)
    assert main(["run", str(folder), "--attempt", "one"]) == 0
    assert result(folder)["samples"] == "attempts/one/samples.jsonl"
    assert (folder / "samples.jsonl").readlink() == Path("attempts/one/samples.jsonl")


def test_of_two_attempts_the_first_to_end_wins(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "run", asked(tiny), train=PAIRS)
    first, late = RunDir(folder, "first"), RunDir(folder, "late")
    for run in (first, late):
        (run.attempt_path / "adapter").mkdir()
    ends = [
        publish(
            run, 0.0, status="done", reason=None, cause=None, adapter=f"attempts/{name}/adapter"
        )
        for name, run in (("first", first), ("late", late))
    ]
    assert ends == [0, 75]
    assert "another attempt ended this run first" in capsys.readouterr().err
    assert result(folder)["attempt"] == "first"
    assert (folder / "adapter").readlink() == Path("attempts/first/adapter")
    assert [e["status"] for e in events(folder) if e["kind"] == "end"] == ["done", "too_late"]
    assert (folder / "attempts" / "late" / "result.json").exists()


def test_a_result_is_strict_json_whatever_was_measured(tmp_path: Path) -> None:
    attempt = tmp_path / "attempts" / "one"
    attempt.mkdir(parents=True)
    odd = {"reward": [{"value": math.nan, "high": math.inf, "n": 3}]}
    metrics = {"loss/train": math.nan, "reward/margin": 1.5, "reward/accuracy_low": None}
    publish_result(attempt, {**NOTHING, "metrics": metrics, "evaluation": odd})
    text = (tmp_path / "result.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text
    found = result(tmp_path)
    assert found["evaluation"] == {"reward": [{"value": None, "high": None, "n": 3}]}
    assert found["metrics"] == {"reward/margin": 1.5}


@pytest.mark.parametrize("errno_name", ["EPERM", "EOPNOTSUPP"])
def test_without_hard_links_the_first_still_wins(
    errno_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(getattr(errno, errno_name), "no hard links here")

    monkeypatch.setattr("os.link", no_links)
    for name, wins in (("one", True), ("two", False)):
        attempt = tmp_path / "attempts" / name
        attempt.mkdir(parents=True)
        assert publish_result(attempt, {"status": "done", **NOTHING}) is wins
    assert result(tmp_path)["attempt"] == "one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attempts", "result.json"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "memory ran out; "),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried 9 GiB\nmore"),
            "(CUDA out of memory. Tr",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "you tried"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "CUBLAS_STATUS_ALLOC_FAILED"),
    ],
)
def test_too_little_memory_is_told_as_such(
    error: Exception, words: str, tiny: Path, tmp_path: Path
) -> None:
    run = RunDir(make_run(tmp_path / "run", asked(tiny), train=PAIRS), "one")
    assert give_up(run, 0.0, error) == 1
    found = result(run.path)
    assert (found["status"], found["cause"]) == ("failed", "oom")
    assert words in found["reason"]
    assert "row_budget" in found["reason"]
    assert "\n" not in found["reason"]


def test_memory_that_really_runs_out_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert cause_of(caught.value) == "oom"


def test_a_plain_runtime_error_is_a_bug() -> None:
    assert cause_of(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) == "bug"
