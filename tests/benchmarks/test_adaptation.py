"""The table of bench-adaptation: its data, its baselines, what is missed, how it is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.adaptation import data, settings
from benchmarks.adaptation.children import found_of, library
from benchmarks.adaptation.report import markdown
from benchmarks.adaptation.stages import STAGES, Row, compared, majority, must_beat
from training.engine.compare import failed
from training.engine.compare_task import read_task
from training.engine.config import from_dict


def test_the_slices_are_what_their_page_says() -> None:
    for every, classes in ((True, 77), (False, 20)):
        train, test = data.banking(every=every)
        assert (len(train), len(test)) == (30 * classes, 10 * classes)
        assert set(Counter(row["label"] for row in train).values()) == {30}
        assert {row["label"] for row in test} == {row["label"] for row in train}
        assert not {row["text"] for row in train} & {row["text"] for row in test}
        # a fair draw: the first hundred are of most classes
        assert len({row["label"] for row in test[: settings.PROMPTED]}) > 0.6 * min(classes, 77)
    train, test = data.sms()
    assert Counter(row["label"] for row in test) == {"ham": 361, "spam": 39}
    assert not {row["text"] for row in train} & {row["text"] for row in test}
    train, test = data.django()
    assert (len(train), len(test)) == (14, 12)
    assert not {row["id"] for row in train} & {row["id"] for row in test}
    for language, counts in (("en", (165, 851)), ("zh", (55, 298)), ("ar", (55, 298))):
        documents, questions = data.xquad(language)
        assert (len(documents), len(questions)) == counts
    documents, asked, examples = data.answering()
    assert len(documents) == len(asked) == data.PARAGRAPHS
    assert not {row["id"] for row in asked} & {row["id"] for row in examples}


def test_every_config_is_one_that_the_engine_takes(tmp_path: Path) -> None:
    own = (settings.MINILM, settings.MINILM_ALL, settings.SMS, settings.SMOLLM2, settings.PRETRAIN)
    for config in own:
        assert from_dict(config).threads == settings.THREADS
    assert from_dict(settings.prompting(["a", "b"], 3)).answer is not None
    _, asked, examples = data.answering()
    data.write(tmp_path / "q.jsonl", asked)
    data.write(tmp_path / "e.jsonl", examples)
    files = {"questions": "q.jsonl", "examples": "e.jsonl"}
    task = read_task(settings.COMPARE | files, tmp_path)
    assert len(task.approaches) == 4
    assert task.seen_before() == 0
    for approach, method in (("sft", "sft"), ("pretrain_sft", "pretrain"), ("rag", "answer")):
        assert task.config(approach, method, **({"index": "i"} if approach == "rag" else {}))


def test_the_majority_is_always_the_same_answer() -> None:
    train = [{"text": str(n), "label": "a" if n < 3 else "b"} for n in range(4)]
    test = [{"text": str(n), "label": "a" if n < 6 else "b"} for n in range(8)]
    figures = majority("stage", train, test).figures
    # 6 of 8; F1 of a = 2·6 / (8 + 6), of b 0
    assert figures["accuracy"][0] == pytest.approx(0.75)
    assert figures["macro-F1"][0] == pytest.approx(12 / 14 / 2)


@pytest.mark.parametrize(("low", "missed"), [(0.31, False), (0.3, True), (0.1, True)])
def test_a_trained_row_has_to_leave_every_baseline_below(low: float, missed: bool) -> None:
    """Its interval's lower end is held against the highest of the others' upper ends."""
    others = [
        Row("s", "guess", {"accuracy": [0.05, 0.0, 0.1]}),
        Row("s", "prompt", {"accuracy": [0.2, 0.1, 0.3]}),
    ]
    row = Row("s", "trained", {"accuracy": [0.9, low, 0.95]})
    must_beat(row, others)
    assert bool(row.missed) is missed
    assert "prompt" in row.reach
    page = markdown([*others, row])
    assert ("**missed**" in page) is missed


def test_an_approach_that_failed_is_a_miss_with_its_reason() -> None:
    row = compared(failed("rag", "no documents"), {"questions": 3})
    assert "no documents" in row.missed
    assert "no documents" in markdown([row])


def test_recall_is_counted_at_five() -> None:
    questions = [{"documents": ["a"]}, {"documents": ["b"]}, {"documents": ["c"]}]
    others = [f"x{n}" for n in range(4)]
    found = found_of([["a"], [*others, "b"], [*others, "x", "c"]], questions)
    assert found["hits"] == [1, 1, 0]
    assert found["mrr"][0] == pytest.approx((1 + 1 / 5 + 1 / 6) / 3)


def test_the_librarys_bm25_finds_what_it_finds_on_xquad() -> None:
    found = library()
    assert len(found["hits"]) == 851
    assert found["recall"][0] > 0.95


def test_an_unknown_stage_is_refused_before_anything_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.adaptation"],
        cwd=data.ROOT, env={"ONLY": "nothing", "PATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"there are {', '.join(STAGES)}" in done.stderr


def test_the_table_is_json_too() -> None:
    row = Row("s", "n", {"accuracy": [0.5, None, None]}, latency_s=(0.001, 0.002), notes=["x"])
    assert json.loads(json.dumps(row.as_json()))["latency_s"] == [0.001, 0.002]
    assert "| n | 0.500 | – | – | 1.0 / 2.0 | none set |" in markdown([row])
    assert "- n: x" in markdown([row])
