from __future__ import annotations

from typing import Any

import pytest

from annotate.formats import pandalm
from annotate.formats.records import RowLeftOut, RowRefused
from tests.data import PANDALM, rows

REAL = rows(PANDALM)


def changed(**fields: Any) -> dict[str, Any]:
    return REAL[0] | fields


def test_a_row_becomes_a_prompt_two_responses_and_three_judgments() -> None:
    record = pandalm.parse(REAL[0], 1)
    instruction, given = REAL[0]["instruction"], REAL[0]["input"]
    assert record.messages == [{"role": "user", "content": f"{instruction}\n\n{given}"}]
    assert record.first.text == "If you have any questions about my rate, please let me know."
    assert record.judgments == (
        ("pandalm:annotator1", "second"),
        ("pandalm:annotator2", "second"),
        ("pandalm:annotator3", "second"),
    )


def test_the_makers_of_the_responses_are_kept_in_order() -> None:
    record = pandalm.parse(REAL[0], 1)
    assert (record.first.reference, record.second.reference) == (
        "pandalm:bloom-7b",
        "pandalm:llama-7b",
    )


def test_people_who_disagree_stay_apart_and_zero_is_a_tie() -> None:
    record = pandalm.parse(REAL[4], 5)
    assert [winner for _, winner in record.judgments] == ["first", "tie", "first"]


def test_an_empty_response_is_a_response() -> None:
    record = pandalm.parse(REAL[3], 4)
    assert "" in (record.first.text, record.second.text)


def test_without_an_input_the_prompt_is_the_instruction() -> None:
    record = pandalm.parse(changed(input=""), 1)
    assert record.messages[0]["content"] == REAL[0]["instruction"]


def test_a_boolean_is_no_response() -> None:
    with pytest.raises(RowRefused, match="response1 is not text \\(True\\)"):
        pandalm.parse(REAL[5], 6)


@pytest.mark.parametrize("answer", [3, -1, "1", None, True, 0.5, [1]])
def test_an_answer_other_than_0_1_2_is_refused(answer: object) -> None:
    with pytest.raises(RowRefused, match=r"annotator2 is .*; expected 0"):
        pandalm.parse(changed(annotator2=answer), 1)


def test_an_empty_instruction_is_refused() -> None:
    with pytest.raises(RowRefused, match="instruction is empty"):
        pandalm.parse(changed(instruction=" "), 1)


def test_equal_responses_are_left_out() -> None:
    with pytest.raises(RowLeftOut, match="nothing to compare"):
        pandalm.parse(changed(response1="same", response2="same"), 1)
