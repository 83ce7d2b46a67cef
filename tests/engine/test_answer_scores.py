"""Scores of answers: by hand, and as SQuAD's own script computes them."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest

from training.engine.answer_metrics import field_f1, retrieval, speed
from training.engine.answer_scores import (
    exact_match,
    field_counts,
    normalised,
    object_in,
    token_f1,
    tokens,
)
from training.engine.passages import Shown, citations, without_citations
from training.engine.questions import Question

PAIRS = [
    ("The Eiffel Tower!", ["Eiffel Tower"]),
    ("in Paris, France", ["Paris", "Paris, Texas"]),
    ("a cat", ["the dog"]),
    ("", ["nothing"]),
    ("the", ["a"]),
    ("$4.50 (approx.)", ["4.50", "450 approx"]),
    ("U.S. state-of-the-art `x|y`~", ["US stateoftheart xy"]),
    ("one one two", ["one two two"]),
]


def squad_normal(text: str) -> str:
    """The steps of `normalize_answer` in SQuAD 1.1's evaluate-v1.1.py, written down anew."""
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(answer: str, gold: str) -> float:
    said, right = squad_normal(answer).split(), squad_normal(gold).split()
    common = sum((Counter(said) & Counter(right)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(said), common / len(right)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(("answer", "gold"), PAIRS)
def test_english_scores_are_those_of_squads_script(answer: str, gold: list[str]) -> None:
    assert exact_match(answer, gold) == max(squad_normal(answer) == squad_normal(g) for g in gold)
    if tokens(answer):  # of two empty answers the script says 0, and SQuAD 2.0's says 1, as here
        assert token_f1(answer, gold) == pytest.approx(max(squad_f1(answer, g) for g in gold))


def test_scores_worked_by_hand() -> None:
    # said: {in, paris, france}; gold: {paris}: 1 in common, F1 = 2·1/(3 + 1)
    assert token_f1("in Paris, France", ["Paris"]) == 0.5
    # bags: one twice and two once against one once and two twice: 2 in common, 4/6
    assert token_f1("one one two", ["one two two"]) == pytest.approx(2 / 3)
    assert token_f1("the", ["a"]) == 1.0  # both are empty without articles
    assert token_f1("cat", ["dog", "cat"]) == 1.0


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    assert tokens("北京市，China 2") == ["北", "京", "市", "china", "2"]
    assert normalised("“北京”。") == "北京"
    # 2 characters in common of 2 and 3
    assert token_f1("北京", ["北京市"]) == pytest.approx(4 / 5)
    assert exact_match("北京。", ["北京"]) == 1.0
    assert token_f1("في القاهرة", ["القاهرة"]) == pytest.approx(2 / 3)


def test_the_first_object_of_an_answer_is_read() -> None:
    assert object_in('Sure {x: {"name": "Ada", "age": 36, "tags": ["a"]} {"b": 1}') == {
        "name": "Ada",
        "age": "36",
        "tags": '["a"]',
    }
    assert object_in("no object [1]") is None
    counts = field_counts({"name": "ada ", "age": "37"}, {"name": "Ada", "age": "36", "x": "1"})
    assert counts == {"right": 1.0, "said": 2.0, "gold": 3.0}


def test_field_f1_counts_over_all_rows() -> None:
    rows = [
        {"fields": {"right": 1.0, "said": 2.0, "gold": 3.0}},
        {"fields": {"right": 2.0, "said": 2.0, "gold": 2.0}},
    ]
    value, low, high = field_f1(rows)
    assert value == pytest.approx(2 * 3 / (4 + 5))
    assert (low, high) == (pytest.approx(2 / 5), 1.0)  # either row twice


def test_citations_are_resolved_once_each_and_a_wrong_number_stays() -> None:
    shown = [Shown(1, "d1", 0, 10), Shown(2, "d2", 5, 20)]
    said = citations("Yes [2], and again [2; 1]. But [7] and [x] not.", shown)
    assert [(each["n"], each["document"]) for each in said] == [(2, "d2"), (1, "d1"), (7, None)]
    assert said[0] == {"n": 2, "document": "d2", "start": 5, "end": 20}
    assert without_citations("At dawn [1, 2].") == "At dawn ."


def test_recall_reciprocal_rank_and_precision_of_citations() -> None:
    nothing = {"n": 9, "document": None}
    rows = [
        {"ranking": ["a", "b"], "citations": [{"n": 1, "document": "a"}, nothing]},
        {"ranking": ["a", "c"], "citations": []},
        {"ranking": [], "citations": [nothing]},
    ]
    questions = [
        Question("1", "?", documents=("b", "z")),
        Question("2", "?", documents=("a",)),
        Question("3", "?"),
    ]
    metrics, found = retrieval(rows, questions)
    assert metrics["answer/recall"] == pytest.approx((0.5 + 1.0) / 2)
    assert metrics["answer/mrr"] == pytest.approx((0.5 + 1.0) / 2)
    assert metrics["answer/cited_precision"] == 0.0  # a is no gold document of the first
    assert found == {
        "questions_with_documents": 2,
        "citations": 2,
        "answers_that_cite": 2,
        "citations_of_nothing": 2,
    }


def test_a_question_waits_for_its_block() -> None:
    found = speed([{"seconds": 4.0, "answers": 3}, {"seconds": 1.0, "answers": 1}])
    assert found["answer/latency_median_s"] == 4.0
    assert found["answer/seconds_each"] == 1.25
