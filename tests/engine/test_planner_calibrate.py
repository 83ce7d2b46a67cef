"""A finished run against its plan: rows packed as it packed them, imports measured apart."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import assistant, make_run, preference_row, result, save_words, user
from training.engine.__main__ import main
from training.engine.config import from_dict
from training.engine.planner import Lengths
from training.engine.planner_calibrate import calibrate, encoded_lengths, lengths_of, look_at
from training.engine.token_inspection import load_texts

PAIRS = [preference_row(n) for n in range(5)]
#: <user> Question number N? <end> <assistant>: 6 tokens.
PROMPT = 6
#: yes indeed N <end>, and no never N <end>.
ANSWER = 4


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_words(tmp_path_factory.mktemp("base") / "words")


def lengths(folder: Path, base: Path, asked: dict[str, Any], **files: Any) -> Any:
    config = {"base": {"source": str(base)}, **asked}
    run = make_run(folder, config, **files)
    parsed = from_dict(config)
    return lengths_of(run, parsed, load_texts(parsed.base))


@pytest.mark.parametrize(
    ("budget", "row"),
    # a tree has 14 tokens; batches hold 4 and 1 of them
    [(2048, 4 * 14), (64, 4 * 14)],
)
def test_rows_are_packed_as_the_run_packs_them(
    budget: int, row: int, words: Path, tmp_path: Path
) -> None:
    found = lengths(tmp_path / "run", words, {"method": "dpo", "row_budget": budget}, train=PAIRS)
    assert (found.longest, found.prompt, found.rows) == (PROMPT + 2 * ANSWER, PROMPT, 5)
    assert found.row == row
    assert found.mean == PROMPT + 2 * ANSWER


def test_a_long_row_is_split_at_the_budget(words: Path, tmp_path: Path) -> None:
    long = [
        {**preference_row(n), "chosen": assistant("w1 " * 19), "rejected": assistant("w1 " * 3)}
        for n in range(4)
    ]
    found = lengths(tmp_path / "run", words, {"method": "reward", "row_budget": 64}, train=long)
    # 6 + 20 + 4 tokens a tree, two to a row
    assert (found.longest, found.row) == (30, 60)


def test_prompts_and_conversations_are_measured_too(words: Path, tmp_path: Path) -> None:
    prompts = [{"id": "0", "prompt": user("w1 w2")}, {"id": "1", "prompt": user("w1 w2 w3")}]
    asked = {
        "method": "ppo",
        "ppo": {"reward_adapter": "r", "max_new_tokens": 8, "samples_per_prompt": 2},
    }
    found = lengths(tmp_path / "ppo", words, asked, prompts=prompts)
    # <user> w1 w2 w3 <end> <assistant>, and two answers of 8
    assert (found.prompt, found.longest, found.rows) == (6, 6 + 16, 2)
    talks = [{"id": "0", "messages": [*user("w1 w2"), *assistant("w3 w4 w5")]}]
    found = lengths(tmp_path / "sft", words, {"method": "sft"}, train=talks)
    assert (found.longest, found.row, found.rows) == (9, 9, 1)


def test_a_run_is_compared_with_its_plan(words: Path, tmp_path: Path) -> None:
    config = {"method": "dpo", "base": {"source": str(words)}, "optim": {"max_steps": 1}}
    run = make_run(tmp_path / "run", config, train=PAIRS)
    assert main(["run", str(run)]) == 0
    said = result(run)
    assert said["lengths"] == asdict(encoded_lengths(run, from_dict(config)))
    assert 0.0 < said["imports_mb"] <= said["peak_mb"]
    around = look_at(run)
    assert around.lengths == Lengths(**said["lengths"])
    assert 100.0 < around.imports_mb < 2000.0
    assert around.lengths.row == 4 * 14
    # what this process holds beside the run counts for it, so only what is above can be compared
    imports = result(run)["peak_mb"] - 1.0
    found = calibrate(run, known=type(around)(imports, around.lengths))
    assert found.measured_mb == pytest.approx(1.0)
    assert 160.0 < found.predicted_mb < 180.0  # what kernels keep, and next to nothing


def test_a_run_whose_rows_are_gone_is_refused(
    words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"method": "dpo", "base": {"source": str(words)}, "optim": {"max_steps": 1}}
    run = make_run(tmp_path / "run", config, train=PAIRS)
    (run / "result.json").write_text('{"status": "done", "peak_mb": 900.0}', encoding="utf-8")
    (run / "data" / "train.jsonl").unlink()
    assert main(["plan", "--calibrate", str(run)]) == 1
    assert "train.jsonl does not exist" in capsys.readouterr().err
