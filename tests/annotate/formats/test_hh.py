from __future__ import annotations

import pytest

from annotate.formats import hh
from annotate.formats.records import PairRecord, SourceJudgment, Unusable
from tests.data import HH, rows

REAL = rows(HH)


def parsed(line: int) -> PairRecord:
    return hh.read(REAL[line - 1], line)


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
    assert record.first.startswith("To be honest, I don’t know anything about that.")
    assert record.second.startswith("I know that the American Indians were the first")
    assert record.judgments == [SourceJudgment("hh-rlhf:crowd", "first")]
    assert record.line == 8


def test_a_transcript_that_is_the_beginning_of_the_other_has_an_empty_answer() -> None:
    record = parsed(1)
    assert REAL[0]["chosen"].startswith(REAL[0]["rejected"].rstrip())
    assert record.first == "The sky’s the limit!"
    assert record.second == ""
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
    assert {record.first, record.second} == {preferred, other}


def test_transcripts_that_part_before_the_last_assistant_turn_share_what_comes_before() -> None:
    # Row 5: the chosen one answers in two turns, so its last turn begins after they have parted.
    assert REAL[4]["chosen"].count("\n\nAssistant:") == 2
    record = parsed(5)
    assert record.messages == [{"role": "user", "content": "How much do solar panels cost?"}]
    assert record.first == (
        "Umm. Just a second...\n\nA solar panel should cost about $50 to $80, "
        "depending on the size and quality."
    )
    assert record.second.startswith("To get a price from a single solar panel manufacturer")


@pytest.mark.parametrize("line", [4, 6])
def test_turns_that_the_model_made_up_belong_to_its_answer(line: int) -> None:
    record = parsed(line)
    assert record.messages[-1]["role"] == "user"
    assert "\n\nHumans:" in record.second
    assert "Humans:" not in record.first


def test_a_real_row_whose_human_turns_differ_asks_two_questions() -> None:
    row = REAL[0]
    other = row["rejected"].replace("Do you have more ideas?", "Any other ideas?") + "None."
    with pytest.raises(Unusable, match="differ before the last assistant turn: two prompts"):
        hh.read({"chosen": row["chosen"], "rejected": other}, 1)


def test_two_turns_of_one_side_in_a_row_become_one_message() -> None:
    record = parsed(7)
    assert REAL[6]["chosen"].count("\n\nAssistant:") == 3
    assert [message["role"] for message in record.messages] == ["user", "assistant", "user"]
    assert "\n\n" in record.messages[1]["content"]


def test_nothing_of_a_row_is_lost_but_the_names_of_the_speakers() -> None:
    for number, row in enumerate(REAL, start=1):
        record = hh.read(row, number)
        for side, answer in (("chosen", record.first), ("rejected", record.second)):
            kept = [message["content"] for message in record.messages] + [answer]
            words = row[side].replace("\n\nHuman:", " ").replace("\n\nAssistant:", " ").split()
            assert " ".join(kept).split() == words


def test_identical_transcripts_are_named() -> None:
    with pytest.raises(Unusable, match="the two transcripts are identical"):
        hh.read({"chosen": REAL[7]["chosen"], "rejected": REAL[7]["chosen"]}, 1)


def test_answers_that_differ_in_blanks_alone_are_the_same() -> None:
    with pytest.raises(Unusable, match="the same text"):
        hh.read({"chosen": turns("Hi", "Hello"), "rejected": turns("Hi", " Hello ")}, 1)


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (
            turns("Hi", "A", "Why?", "B"),
            turns("Hi", "A", "How?", "B"),
            "differ before the last assistant",
        ),
        (turns("Hi", "A"), turns("Ho", "B"), "differ before the last assistant"),
        (turns("Hi", "A", "More"), turns("Hi", "A", "Less"), "does not end with an assistant turn"),
        ("Hi there", turns("Hi", "A"), "chosen is no transcript"),
        (turns("Hi", "A"), "", "rejected is no transcript"),
        ("\n\nAssistant: A", "\n\nAssistant: B", "chosen is no transcript"),
        (turns("Hi", "A"), None, "rejected is missing, not text"),
        (turns("Hi", "A"), True, "rejected is True, not text"),
        (turns("Hi", "\ud83d"), turns("Hi", "B"), "half a surrogate pair"),
        (turns("Hi", "A\0"), turns("Hi", "B"), "NUL character"),
    ],
)
def test_a_row_that_is_no_pair_of_transcripts_is_refused(
    chosen: object, rejected: object, reason: str
) -> None:
    with pytest.raises(Unusable, match=reason):
        hh.read({"chosen": chosen, "rejected": rejected}, 1)


def test_the_second_half_of_a_shared_assistant_turn_is_no_answer_of_its_own() -> None:
    shared = turns("Hi", "Wait")
    record = hh.read(
        {"chosen": f"{shared}\n\nAssistant: A", "rejected": f"{shared}\n\nAssistant: B"}, 1
    )
    assert record.messages == [{"role": "user", "content": "Hi"}]
    assert record.first == "Wait\n\nA"
