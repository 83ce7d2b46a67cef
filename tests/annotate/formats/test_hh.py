from __future__ import annotations

import pytest

from annotate.formats import hh
from annotate.formats.records import ComparisonRecord, RowLeftOut, RowRefused
from tests.data import HH, rows

REAL = rows(HH)


def parsed(line: int) -> ComparisonRecord:
    return hh.parse(REAL[line - 1], line)


def turns(*texts: str) -> str:
    return "".join(
        f"\n\n{'Human' if place % 2 == 0 else 'Assistant'}: {text}"
        for place, text in enumerate(texts)
    )


def test_a_plain_row_becomes_a_prompt_and_two_answers() -> None:
    record = parsed(8)
    assert record.messages == [
        {
            "role": "user",
            "content": "Do you know why turkeys became the official food of thanksgiving?",
        }
    ]
    assert record.first.text.startswith("To be honest, I don’t know anything about that.")
    assert record.second.text.startswith("I know that the American Indians were the first")
    assert record.judgments == (("hh-rlhf:crowd", "first"),)
    assert record.line == 8


def test_a_transcript_that_is_the_beginning_of_the_other_has_an_empty_answer() -> None:
    record = parsed(1)
    assert REAL[0]["chosen"].startswith(REAL[0]["rejected"].rstrip())
    assert record.first.text == "The sky’s the limit!"
    assert record.second.text == ""
    assert record.messages[-1]["role"] == "user"


@pytest.mark.parametrize(
    ("line", "preferred", "other"),
    [
        (2, "You’re welcome! It was my pleasure!", "You’re welcome!"),
        (3, "What sort of essay? What's your assignment?", "What sort of essay?"),
    ],
)
def test_an_answer_that_begins_the_other_stays_whole(line: int, preferred: str, other: str) -> None:
    record = parsed(line)
    assert {record.first.text, record.second.text} == {preferred, other}


def test_answers_that_part_before_the_last_assistant_turn_are_kept_to_their_end() -> None:
    record = parsed(5)
    assert record.messages == [{"role": "user", "content": "How much do solar panels cost?"}]
    assert record.first.text == (
        "Umm. Just a second...\n\nAssistant: A solar panel should cost about $50 to $80, "
        "depending on the size and quality."
    )
    assert record.second.text.startswith("To get a price from a single solar panel manufacturer")


@pytest.mark.parametrize("line", [4, 6])
def test_turns_that_the_model_made_up_belong_to_its_answer(line: int) -> None:
    record = parsed(line)
    assert record.messages[-1]["role"] == "user"
    assert "\n\nHumans:" in record.second.text
    assert "\n\nAssistant:" in record.second.text
    assert "Assistant:" not in record.first.text


def test_two_turns_of_one_side_in_a_row_become_one_message() -> None:
    record = parsed(7)
    assert REAL[6]["chosen"].count("\n\nAssistant:") == 3
    assert [message["role"] for message in record.messages] == ["user", "assistant", "user"]
    assert "\n\n" in record.messages[1]["content"]


def test_nothing_of_a_row_is_lost() -> None:
    for number, row in enumerate(REAL, start=1):
        record = hh.parse(row, number)
        for name, response in (("chosen", record.first), ("rejected", record.second)):
            assert row[name].rstrip().endswith(response.text)
            for message in record.messages:
                for part in message["content"].split("\n\n"):
                    assert part in row[name]


def test_identical_transcripts_are_left_out_with_the_reason() -> None:
    with pytest.raises(RowLeftOut, match="the same text, so there is nothing to compare"):
        hh.parse({"chosen": REAL[7]["chosen"], "rejected": REAL[7]["chosen"]}, 1)


def test_answers_that_differ_in_blanks_alone_are_the_same() -> None:
    with pytest.raises(RowLeftOut):
        hh.parse({"chosen": turns("Hi", "Hello"), "rejected": turns("Hi", " Hello ")}, 1)


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (turns("Hi", "A", "Why?", "B"), turns("Hi", "A", "How?", "B"), "differ in a Human turn"),
        (turns("Hi", "A"), turns("Ho", "B"), "share no Human turn"),
        (turns("Hi", "A", "More"), turns("Hi", "A", "Less"), "does not end with an Assistant turn"),
        ("Hi there", turns("Hi", "A"), "chosen is not a transcript"),
        (turns("Hi", "A"), "", "rejected is not a transcript"),
        ("\n\nAssistant: A", "\n\nAssistant: B", "chosen is not a transcript"),
        (turns("Hi", "A"), None, "rejected is not text \\(missing\\)"),
        (turns("Hi", "A"), True, "rejected is not text \\(True\\)"),
        (turns("Hi", "\ud83d"), turns("Hi", "B"), "half of a surrogate pair"),
        (turns("Hi", "A\0"), turns("Hi", "B"), "NUL character"),
    ],
)
def test_a_row_that_is_no_pair_of_transcripts_is_refused(
    chosen: object, rejected: object, reason: str
) -> None:
    with pytest.raises(RowRefused, match=reason):
        hh.parse({"chosen": chosen, "rejected": rejected}, 1)


def test_the_second_half_of_a_shared_assistant_turn_is_no_answer_of_its_own() -> None:
    shared = turns("Hi", "Wait")
    record = hh.parse(
        {"chosen": f"{shared}\n\nAssistant: A", "rejected": f"{shared}\n\nAssistant: B"}, 1
    )
    assert record.messages == [{"role": "user", "content": "Hi"}]
    assert record.first.text == "Wait\n\nAssistant: A"
