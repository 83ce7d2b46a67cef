"""Four approaches on one task: each a child process, one table, and what is finished is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.engine.__main__ import main
from training.engine.answered import whole_rows
from training.engine.compare import difference, run_comparison
from training.engine.compare_report import html, text
from training.engine.compare_stages import Stages
from training.engine.compare_task import merged, read_task
from training.engine.errors import ConfigError, DataError

COLOURS = ("red", "green")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.name


@pytest.fixture
def task(tmp_path: Path, tiny: Path) -> dict[str, Any]:
    """What colour is thing n: the examples say it, so that training on them can be seen."""
    here = tmp_path / "task"
    here.mkdir()

    def row(n: int, first: str) -> dict[str, Any]:
        return {"id": f"{first}{n}", "question": f"{first} thing {n % 4}?", "answers": [COLOURS[0]]}

    documents = [{"id": f"d{n}", "text": f"Thing {n} is {COLOURS[0]}. It is."} for n in range(4)]
    return {
        "name": "colours",
        "questions": write_rows(
            here / "q.jsonl", [{**row(n, "Which"), "documents": [f"d{n}"]} for n in range(4)]
        ),
        "examples": write_rows(here / "e.jsonl", [row(n, "What") for n in range(16)]),
        "documents": [write_rows(here / "d.jsonl", documents)],
        "general": write_rows(
            here / "g.jsonl", [{"id": f"g{n}", "text": f"Some other words {n}."} for n in range(3)]
        ),
        "run": {"base": {"source": str(tiny)}},
        "answer": {"max_new_tokens": 1, "block": 2},
        "prompting": {"answer": {"prompt": {"examples": 1}}},
        "rag": {"index": {"dense": False}, "answer": {"k": 2}},
        "sft": {"sft": {"optim": {"lr": 0.05, "epochs": 4}}},
        "pretrain_sft": {
            "pretrain": {"optim": {"max_steps": 2}},
            "sft": {"optim": {"lr": 0.05, "epochs": 4}},
        },
    }


def command(tmp_path: Path, task: dict[str, Any]) -> list[str]:
    (tmp_path / "task/task.json").write_text(json.dumps(task), encoding="utf-8")
    return ["compare", str(tmp_path / "task/task.json"), "--out", str(tmp_path / "out")]


@pytest.mark.timeout(1200)  # nine processes one after the other, each of which imports torch
def test_four_approaches_end_in_one_table_and_are_kept(
    tmp_path: Path, task: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, task)) == 0
    found = json.loads((tmp_path / "out/compare.json").read_text())
    rows = {row["approach"]: row for row in found["rows"]}
    assert {row["status"] for row in rows.values()} == {"done"}
    assert rows["prompting"]["difference"] is None
    assert rows["prompting"]["forgetting"] is rows["rag"]["forgetting"] is None
    # sixteen examples with one answer teach even this model its one token (not yet to stop)
    assert rows["sft"]["quality"]["answer/f1"]["value"] == 1.0
    better = 1.0 - rows["prompting"]["quality"]["answer/f1"]["value"]
    assert rows["sft"]["difference"]["value"] == pytest.approx(better)
    for name in ("sft", "pretrain_sft"):
        forgotten = rows[name]["forgetting"]
        ratio = forgotten["perplexity_after"]["value"] / forgotten["perplexity_before"]["value"]
        assert forgotten["change"]["value"] == pytest.approx(ratio - 1.0)
        assert ratio != 1.0
    assert rows["rag"]["retrieval"]["answer/recall"]["value"] == 1.0
    assert [each["stage"] for each in rows["pretrain_sft"]["stages"]] == [
        "pretrain",
        "pretrain-sft",
        "pretrain-sft-answer",
    ]
    for row in rows.values():
        assert row["cost"]["cpu_s"] >= row["cost"]["cpu_s_answering"] > 0.0
        assert row["memory"]["peak_mb"] > 0.0
        assert row["latency"]["p95_s"] >= row["latency"]["median_s"] > 0.0
    shown = capsys.readouterr().out
    assert "Continued pretraining + SFT" in shown
    page = (tmp_path / "out/compare.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")

    # again: nothing is run, and the same is found
    ledger = whole_rows(tmp_path / "out/ledger.jsonl")
    assert main(command(tmp_path, task)) == 0
    assert whole_rows(tmp_path / "out/ledger.jsonl") == ledger
    assert json.loads((tmp_path / "out/compare.json").read_text()) == found

    # another setting of one approach runs that one anew, and loses no other
    task["rag"]["answer"]["k"] = 1
    assert main(command(tmp_path, task)) == 0
    new = whole_rows(tmp_path / "out/ledger.jsonl")[len(ledger) :]
    assert [row["stage"] for row in new] == ["rag-answer", "rag-answer"]


def test_an_approach_that_fails_is_a_row_with_its_reason(
    tmp_path: Path, task: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del task["documents"]
    task["approaches"] = ["prompting", "rag", "sft"]
    task["sft"]["sft"]["adapter"] = {"target_modules": ["no_such_layer"]}
    assert main(command(tmp_path, task)) == 0
    prompting, rag, sft = json.loads((tmp_path / "out/compare.json").read_text())["rows"]
    assert prompting["status"] == "done"
    assert rag["reason"] == "the task has no documents: there is nothing to retrieve"
    assert sft["reason"].startswith("sft: ")
    assert "no_such_layer" in sft["reason"]
    assert "failed: the task has no documents" in capsys.readouterr().out
    task["approaches"] = ["rag"]
    assert main(command(tmp_path, task)) == 1


def test_a_stage_that_was_cut_off_goes_on_and_says_so(tmp_path: Path, task: dict[str, Any]) -> None:
    task["approaches"] = ["prompting"]
    here = tmp_path / "task"
    first = run_comparison(task, tmp_path / "out", folder=here)
    whole = (tmp_path / "out/ledger.jsonl").read_bytes().splitlines(keepends=True)
    # a kill of this process between the two lines of its ledger, with half a line of the second
    (tmp_path / "out/ledger.jsonl").write_bytes(whole[0] + whole[1][:20])
    (folder,) = (tmp_path / "out/stages").iterdir()
    answers = next(folder.glob("attempts/*/answers.jsonl"))
    kept = answers.read_bytes()
    answers.write_bytes(kept[: len(kept) // 2])
    (folder / "result.json").unlink()
    (folder / "answers.jsonl").unlink()
    again = run_comparison(task, tmp_path / "out", folder=here)
    assert (folder / "answers.jsonl").read_bytes() == kept
    assert again["rows"][0]["quality"] == first["rows"][0]["quality"]
    (stage,) = again["rows"][0]["stages"]
    assert (stage["attempts"], stage["cut_off"]) == (1, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"questoins": "x"}, "unknown fields: questoins"),
        ({"approaches": ["magic"]}, "allowed: prompting, rag, sft, pretrain_sft"),
        ({"questions": None}, "questions is missing"),
        ({"run": {"method": "sft"}}, "run holds method"),
        ({"rag": {"sft": {}}}, "it may hold index, answer"),
        ({"answer": []}, "answer must be an object"),
    ],
)
def test_a_task_that_is_wrong_is_refused_before_anything_runs(
    tmp_path: Path, task: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        run_comparison(task | change, tmp_path / "out", folder=tmp_path / "task")
    assert not (tmp_path / "out").exists()


def test_questions_without_gold_answers_and_missing_files_are_refused(
    tmp_path: Path, task: dict[str, Any]
) -> None:
    write_rows(tmp_path / "task/none.jsonl", [{"id": "a", "question": "What?"}])
    for wrong, said in (("none.jsonl", "has a gold answer"), ("gone.jsonl", "does not exist")):
        with pytest.raises(DataError, match=said):
            read_task(task | {"questions": wrong}, tmp_path / "task")


def test_questions_that_are_examples_too_are_counted(tmp_path: Path, task: dict[str, Any]) -> None:
    assert read_task(task, tmp_path / "task").seen_before() == 0
    assert read_task(task | {"questions": "e.jsonl"}, tmp_path / "task").seen_before() == 16


def test_differences_are_paired_by_question(tmp_path: Path, task: dict[str, Any]) -> None:
    read = read_task(task, tmp_path / "task")
    ours = [{"id": f"{n}", "scores": {"f1": 1.0}} for n in range(3)] + [{"id": "x", "scores": None}]
    theirs = [{"id": f"{n}", "scores": {"f1": n / 2}} for n in range(3)] + ours[3:]
    found = difference(read, ours, theirs)
    assert found["value"] == pytest.approx((1.0 + 0.5 + 0.0) / 3)
    assert (found["low"], found["high"], found["n"]) == (0.0, 1.0, 3)


def test_sections_are_laid_over_each_other() -> None:
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"d": 4}) == {
        "a": {"b": 3, "c": 2},
        "d": 4,
    }


def test_the_digest_of_a_stage_does_not_hold_where_the_folder_is(tmp_path: Path) -> None:
    def digest(out: Path) -> str:
        return Stages(out)._digest("s", f'{{"adapter": "{out.resolve()}/stages/x"}}', {})

    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_the_report_escapes_what_others_wrote() -> None:
    row = {"approach": "rag", "title": "RAG", "status": "failed", "reason": "<b>x</b>"}
    row |= {"stages": None}
    found = {
        "task": "<i>t</i>", "questions": 1, "examples": 0, "questions_among_the_examples": 1,
        "primary": "answer/f1", "rows": [row],
    }  # fmt: skip
    assert "<b>" not in html(found)
    assert "<i>" not in html(found)
    assert "1 questions stand among the examples too" in text(found)


def test_a_run_folder_is_a_task_too(tmp_path: Path, task: dict[str, Any]) -> None:
    """The method `compare`: the same table as its result, its stages as events, and a new attempt
    keeps what is there."""
    here, folder = tmp_path / "task", tmp_path / "run"
    (folder / "data").mkdir(parents=True)
    for name, file in (("test", "q"), ("examples", "e"), ("documents", "d")):
        (folder / f"data/{name}.jsonl").write_text((here / f"{file}.jsonl").read_text())
    config = {
        "method": "compare",
        "base": task["run"]["base"],
        "compare": {
            "approaches": ["prompting", "rag"], "answer": task["answer"], "rag": task["rag"],
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["run", str(folder)]) == 0
    result = json.loads((folder / "result.json").read_text())
    assert [row["status"] for row in result["comparison"]["rows"]] == ["done", "done"]
    assert result["comparison"]["rows"][1]["retrieval"]["answer/recall"]["value"] > 0
    assert (folder / result["report"]).is_file()
    events = [json.loads(e) for p in folder.glob("attempts/*/events.jsonl") for e in p.open()]
    phases = [event["name"] for event in events if event["kind"] == "phase"]
    assert phases == ["prompting-answer", "rag-index", "rag-answer"]
    progress = [event["step"] for event in events if event["kind"] == "progress"]
    assert progress == [0, 1, 2, 3]
    ledger = (folder / "compare/ledger.jsonl").read_text()
    (folder / "result.json").unlink()
    assert main(["run", str(folder)]) == 0
    assert (folder / "compare/ledger.jsonl").read_text() == ledger
