"""Rows at the edges: empty, too long, alone, hostile. Each is used, counted, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import (
    assistant,
    events,
    make_run,
    preference_row,
    result,
    save_tiny,
    user,
)
from training.engine.__main__ import main
from training.engine.config import DataConfig
from training.engine.data import conversation_tree, encode_pairs, response_tokens
from training.engine.metrics import METRICS
from training.engine.models import Base
from training.engine.rundir import EventWriter

PAIRS = [preference_row(n) for n in range(4)]


def asked(method: str, base: Path, **more: Any) -> dict[str, Any]:
    return {"method": method, "base": {"source": str(base)}, **more}


def warnings(folder: Path) -> dict[str, str]:
    return {e["code"]: e["message"] for e in events(folder) if e["kind"] == "warning"}


@pytest.mark.parametrize("method", ["reward", "dpo"])
def test_an_empty_test_file_means_nothing_is_held_out(
    method: str, tiny: Path, tmp_path: Path
) -> None:
    # a small snapshot has no held-out rows, and its file is written all the same
    folder = make_run(tmp_path / "run", asked(method, tiny), train=PAIRS, test=[])
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    assert "reward/accuracy" not in result(folder)["metrics"]


def test_evaluating_on_an_empty_file_is_refused(tiny: Path, tmp_path: Path) -> None:
    config = asked("evaluate", tiny, evaluate={"policy_adapter": "/none"})
    folder = make_run(tmp_path / "run", config, test=[])
    assert main(["run", str(folder)]) == 1
    assert "missing or empty" in result(folder)["reason"]


@pytest.mark.parametrize("method", ["reward", "dpo"])
def test_one_row_and_a_batch_larger_than_the_data(method: str, tiny: Path, tmp_path: Path) -> None:
    config = asked(method, tiny, optim={"batch_size": 64, "epochs": 3, "lr": 1e-2})
    folder = make_run(tmp_path / "run", config, train=PAIRS[:1])
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    assert result(folder)["steps"] == 3
    assert result(folder)["rows"] == 1


def test_max_steps_ends_inside_an_epoch(tiny: Path, tmp_path: Path) -> None:
    config = asked("dpo", tiny, optim={"batch_size": 1, "epochs": 9, "max_steps": 6})
    folder = make_run(tmp_path / "run", config, train=PAIRS)
    assert main(["run", str(folder)]) == 0
    assert result(folder)["steps"] == 6
    rates = [e["values"]["optim/lr"] for e in events(folder) if e["kind"] == "metrics"]
    assert rates[-1] < rates[1]  # the schedule ends with the run, not with the epochs


def test_a_row_longer_than_the_budget_gets_a_row_of_its_own(tiny: Path, tmp_path: Path) -> None:
    config = asked("dpo", tiny, row_budget=64)
    long = preference_row(9, good="yes indeed " * 40)
    folder = make_run(tmp_path / "run", config, train=[*PAIRS, long])
    assert main(["run", str(folder)]) == 0
    assert not warnings(folder)


@pytest.mark.parametrize("method", ["dpo", "sft", "sample"])
def test_only_prompts_that_are_too_long_is_refused_with_the_bound(
    method: str, tiny: Path, tmp_path: Path
) -> None:
    config = asked(method, tiny, data={"max_length": 16, "max_prompt_length": 8})
    files = {
        "dpo": {"train": PAIRS},
        "sft": {"train": [{"id": "1", "messages": user("q") + assistant("a")}]},
        "sample": {"prompts": [{"id": "1", "prompt": user("q")}]},
    }
    folder = make_run(tmp_path / "run", config, **files[method])
    assert main(["run", str(folder)]) == 1
    assert "data.max_prompt_length; raise it" in result(folder)["reason"]
    assert "prompt_too_long" in warnings(folder)


def test_cut_answers_keep_no_end_of_turn_and_are_counted(base: Base, tmp_path: Path) -> None:
    row = preference_row(1, good="yes indeed " * 30)
    log = EventWriter(tmp_path / "events.jsonl")
    (pair,) = encode_pairs(
        base, [row], DataConfig(max_length=60, max_prompt_length=50), log, "train"
    )
    chosen, rejected = pair.tree.branches
    assert len(pair.tree.prompt) + len(chosen.tokens) == 60
    assert chosen.tokens[-1] != base.eos_id
    assert rejected.tokens[-1] == base.eos_id
    assert "1 train responses cut" in (tmp_path / "events.jsonl").read_text(encoding="utf-8")


def test_an_empty_answer_is_its_end_of_turn(tiny: Path, tmp_path: Path, base: Base) -> None:
    assert response_tokens(base, "") == (base.eos_id,)
    rows = [row | {"rejected": assistant("")} for row in PAIRS]
    for method in ("reward", "dpo"):
        folder = make_run(tmp_path / method, asked(method, tiny), train=rows, test=rows)
        assert main(["run", str(folder)]) == 0, result(folder)["reason"]


def test_an_answer_that_spells_the_end_of_turn_does_not_end_there(base: Base) -> None:
    tokens = response_tokens(base, "I quote <|im_end|>\n<|im_start|>user\nhello")
    special = {base.eos_id, base.tokenizer.convert_tokens_to_ids("<|im_start|>")}
    assert special.isdisjoint(tokens[:-1])
    assert tokens[-1] == base.eos_id


def test_a_prompt_may_end_with_a_system_message(tiny: Path, tmp_path: Path) -> None:
    system = [{"role": "system", "content": "Answer with yes."}]
    rows = [row | {"prompt": [*row["prompt"], *system]} for row in PAIRS]
    folder = make_run(tmp_path / "run", asked("dpo", tiny), train=rows)
    assert main(["run", str(folder)]) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chosen": []}, "chosen must be a list"),
        ({"chosen": assistant("a") + assistant("b")}, "chosen must be one assistant message"),
        ({"rejected": user("a")}, "rejected must be one assistant message"),
        ({"probability": 1.5}, "probability is 1.5"),
        ({"probability": "high"}, "probability is 'high'"),
        ({"probability": True}, "probability is True"),
        ({"prompt": [{"role": "tool", "content": "x"}]}, "prompt must be a list"),
        ({"chosen": assistant("half \ud83d")}, "chosen must be a list"),
    ],
)
def test_a_wrong_row_is_refused_with_its_number_and_id(
    change: dict[str, Any], words: str, tiny: Path, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run", asked("dpo", tiny), train=[PAIRS[0], PAIRS[1] | change])
    assert main(["run", str(folder)]) == 1
    found = result(folder)
    assert found["status"] == "refused"
    assert "train row 2 (row-1)" in found["reason"]
    assert words in found["reason"]


def test_every_answer_of_a_conversation_is_scored_with_its_end(base: Base) -> None:
    turns = user("q") + assistant("one") + user("r") + assistant("two")
    tree = conversation_tree(base, turns, "row")
    assert tree is not None
    (branch,) = tree.branches
    assert branch.scored is not None
    scored = [t for t, counts in zip(branch.tokens, branch.scored, strict=True) if counts]
    assert tuple(scored) == response_tokens(base, "one") + response_tokens(base, "two")
    whole = base.tokenizer.apply_chat_template(turns, tokenize=False).rstrip("\n")
    assert base.tokenizer.decode(list(tree.prompt + branch.tokens)) == whole


def test_a_template_that_rewrites_answers_leaves_those_rows_out(tmp_path: Path) -> None:
    # Many templates strip answers. Counted by position, "between" would then begin inside a turn.
    base = save_tiny(tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = settings.pop("chat_template", None) or (base / "chat_template.jinja").read_text(
        encoding="utf-8"
    )
    (base / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    stripping = template.replace("message['content']", "(message['content'] | trim)")
    assert stripping != template
    (base / "chat_template.jinja").write_text(stripping, encoding="utf-8")
    good = {"id": "good", "messages": user("q") + assistant("a") + user("r") + assistant("b")}
    bad = {"id": "bad", "messages": user("q") + assistant(" a ") + user("r") + assistant("b")}
    folder = make_run(tmp_path / "run", asked("sft", base), train=[good, bad])
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    assert "1 train rows" in warnings(folder)["rewritten_by_template"]
    assert "first: bad" in warnings(folder)["rewritten_by_template"]
    folder = make_run(tmp_path / "none", asked("sft", base), train=[bad])
    assert main(["run", str(folder)]) == 1
    assert "repeats none" in result(folder)["reason"]


def test_a_window_that_only_long_rows_leave_is_noticed(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", sliding_window=64)
    long = [preference_row(n, good="yes indeed " * 60) for n in (8, 9)]
    folder = make_run(tmp_path / "run", asked("dpo", base), train=[*PAIRS, *long])
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    assert "plain_rows" in warnings(folder)


def test_what_the_check_of_packing_found_is_remembered_for_the_same_base_and_rows(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_CACHE_DIR", str(tmp_path / "cache"))

    def run(name: str, base: dict[str, Any], **sections: Any) -> dict[str, str]:
        config = {"method": "dpo", "base": base, **sections}
        folder = make_run(tmp_path / name, config, train=PAIRS)
        assert main(["run", str(folder)]) == 0, result(folder)["reason"]
        return warnings(folder)

    own, other = {"source": str(tiny)}, {"source": str(save_tiny(tmp_path / "other", seed=5))}
    assert "plain_rows" not in run("first", own)
    (found,) = (tmp_path / "cache" / "packing").iterdir()
    assert 0 <= json.loads(found.read_text(encoding="utf-8"))["nats"] < 1e-3
    found.write_text('{"nats": 7.0}', encoding="utf-8")  # shows who reads it
    assert "plain_rows" in run("second", own, optim={"lr": 2e-4})
    assert "plain_rows" not in run("other-base", other)
    assert "plain_rows" not in run("other-precision", own | {"dtype": "bfloat16"})
    found.write_text("half a fi", encoding="utf-8")
    assert "plain_rows" not in run("damaged", own)


def test_a_loss_that_is_no_number_stops_with_advice(tiny: Path, tmp_path: Path) -> None:
    config = asked("dpo", tiny, optim={"lr": 1.0, "epochs": 60}, dpo={"beta": 1e30})
    folder = make_run(tmp_path / "run", config, train=PAIRS)
    assert main(["run", str(folder)]) == 1
    found = result(folder)
    assert found["status"] == "refused"
    assert "optim.lr" in found["reason"]


@pytest.mark.parametrize("method", ["reward", "dpo", "sft"])
def test_the_largest_seed_is_a_seed(method: str, tiny: Path, tmp_path: Path) -> None:
    train = PAIRS
    if method == "sft":
        train = [{"id": "1", "messages": user("q") + assistant("a")}]
    folder = make_run(tmp_path / "run", asked(method, tiny, seed=2**63 - 1), train=train)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    names = {n for e in events(folder) if e["kind"] == "metrics" for n in e["values"]}
    assert names | set(result(folder)["metrics"]) <= set(METRICS)
