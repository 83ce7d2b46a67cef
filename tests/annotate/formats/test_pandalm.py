from __future__ import annotations

from typing import Any

import pytest

from annotate.formats import pandalm
from annotate.formats.records import SourceJudgment, Unusable
from tests.data import PANDALM, rows

REAL = rows(PANDALM)


def changed(**fields: Any) -> dict[str, Any]:
    return REAL[0] | fields


def test_a_row_becomes_a_prompt_two_responses_and_three_judgments() -> None:
    record = pandalm.read(REAL[0], 1)
    instruction, given = REAL[0]["instruction"], REAL[0]["input"]
    assert record.messages == [{"role": "user", "content": f"{instruction}\n\n{given}"}]
    assert record.first == "If you have any questions about my rate, please let me know."
    assert record.judgments == [
        SourceJudgment(f"pandalm:annotator{number}", "second") for number in (1, 2, 3)
    ]
    assert record.reference == "pandalm:0"


@pytest.mark.parametrize("idx", ["\0", None, ["x"], "\ud83d"])
def test_an_index_that_is_no_number_gives_way_to_the_line(idx: object) -> None:
    assert pandalm.read(changed(idx=idx), 7).reference == "pandalm:7"


def test_people_who_disagree_stay_apart_and_zero_is_a_tie() -> None:
    record = pandalm.read(REAL[4], 5)
    assert [judgment.answer for judgment in record.judgments] == ["first", "tie", "first"]


def test_an_empty_response_is_a_response() -> None:
    record = pandalm.read(REAL[3], 4)
    assert "" in (record.first, record.second)


@pytest.mark.parametrize("given", [7, ["x"], True])
def test_an_input_that_is_no_text_is_refused(given: object) -> None:
    with pytest.raises(Unusable, match=r"input is .*, not text"):
        pandalm.read(changed(input=given), 1)


def test_without_an_input_the_prompt_is_the_instruction() -> None:
    record = pandalm.read(changed(input=""), 1)
    assert record.messages[0]["content"] == REAL[0]["instruction"]


def test_a_boolean_is_no_response() -> None:
    with pytest.raises(Unusable, match="response1 is True, not text"):
        pandalm.read(REAL[5], 6)


@pytest.mark.parametrize("answer", [3, -1, "1", None, True, 0.5, [1], {}, float("nan")])
def test_an_answer_other_than_0_1_2_is_refused(answer: object) -> None:
    with pytest.raises(Unusable, match=r"annotator2 is .*; 0, 1 or 2 was expected"):
        pandalm.read(changed(annotator2=answer), 1)


def test_an_empty_instruction_is_refused() -> None:
    with pytest.raises(Unusable, match="instruction is empty"):
        pandalm.read(changed(instruction=" "), 1)


def test_equal_responses_are_refused() -> None:
    with pytest.raises(Unusable, match="the same text"):
        pandalm.read(changed(response1="same", response2="same"), 1)
