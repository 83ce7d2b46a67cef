from __future__ import annotations

from typing import Any

import pytest

from annotate.formats import trl
from annotate.formats.records import SourceJudgment, Unusable

SKY = [{"role": "user", "content": "What colour is the sky?"}]
BLUE = [{"role": "assistant", "content": "Blue."}]
GREEN = [{"role": "assistant", "content": "Green."}]


@pytest.mark.parametrize(
    ("row", "prompt", "chosen", "rejected"),
    [
        pytest.param(
            {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
            "The sky is",
            " blue.",
            " green.",
            id="explicit standard",
        ),
        pytest.param(
            {"chosen": "The sky is blue.", "rejected": "The sky is green."},
            "The sky is",
            " blue.",
            " green.",
            id="implicit standard",
        ),
        pytest.param(
            {"prompt": SKY, "chosen": BLUE, "rejected": GREEN},
            "What colour is the sky?",
            "Blue.",
            "Green.",
            id="explicit conversational",
        ),
        pytest.param(
            {"chosen": SKY + BLUE, "rejected": SKY + GREEN},
            "What colour is the sky?",
            "Blue.",
            "Green.",
            id="implicit conversational",
        ),
        pytest.param(
            {"prompt": SKY[0]["content"], "chosen": SKY + BLUE, "rejected": SKY + GREEN},
            "What colour is the sky?",
            "Blue.",
            "Green.",
            id="whole conversations beside a text prompt",
        ),
        pytest.param(
            {"prompt": SKY, "chosen": SKY + BLUE, "rejected": SKY + GREEN},
            "What colour is the sky?",
            "Blue.",
            "Green.",
            id="whole conversations beside their prompt",
        ),
        pytest.param(
            {"prompt": SKY[0]["content"], "chosen": BLUE, "rejected": GREEN},
            "What colour is the sky?",
            "Blue.",
            "Green.",
            id="text prompt, answers as messages",
        ),
        pytest.param(
            {"prompt": SKY, "chosen": "Blue.", "rejected": "Green."},
            "What colour is the sky?",
            "Blue.",
            "Green.",
            id="prompt as messages, answers as text",
        ),
    ],
)
def test_every_shape_of_a_preference_row(
    row: dict[str, Any], prompt: str, chosen: str, rejected: str
) -> None:
    record = trl.read(row, 1)
    assert record.messages == [{"role": "user", "content": prompt}]
    assert (record.first, record.second) == (chosen, rejected)
    assert record.judgments == [SourceJudgment("import:chosen", "first")]


def test_an_implied_prompt_is_whole_words_even_where_one_text_begins_the_other() -> None:
    record = trl.read({"chosen": "The sky is blue", "rejected": "The sky is blueish"}, 1)
    assert record.messages[0]["content"] == "The sky is"
    assert (record.first, record.second) == (" blue", " blueish")


def test_a_system_message_and_earlier_turns_stay_in_the_prompt() -> None:
    talk = [{"role": "system", "content": "Be brief."}, *SKY, *BLUE, *SKY]
    record = trl.read({"chosen": talk + BLUE, "rejected": talk + GREEN}, 1)
    assert record.messages == talk


def test_keys_that_parquet_added_without_a_value_say_nothing() -> None:
    padded = [message | {"name": None} for message in SKY]
    assert trl.read({"prompt": padded, "chosen": BLUE, "rejected": GREEN}, 1).messages == SKY


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Hello"},
        {"chosen": "Same text", "rejected": "Same text"},
        {"prompt": SKY, "chosen": BLUE, "rejected": BLUE},
        {"chosen": SKY + BLUE, "rejected": SKY + BLUE},
    ],
)
def test_equal_answers_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(Unusable, match="the same text"):
        trl.read(row, 1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Hi", "chosen": 1, "rejected": "b"}, "chosen is 1, not text"),
        ({"prompt": "Hi", "chosen": "a"}, "rejected is missing, not text"),
        ({"prompt": 7, "chosen": "a", "rejected": "b"}, "prompt is 7, not text"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "prompt is empty"),
        ({"prompt": BLUE, "chosen": BLUE, "rejected": GREEN}, "does not end with a user's message"),
        ({"chosen": "Red", "rejected": "Blue"}, "share no beginning"),
        ({"prompt": SKY, "chosen": BLUE, "rejected": "Green."}, "the other a list of messages"),
        ({"chosen": BLUE, "rejected": GREEN}, "share no user's message"),
        ({"prompt": SKY, "chosen": BLUE + SKY, "rejected": GREEN}, "chosen is not one message"),
        ({"prompt": SKY, "chosen": BLUE, "rejected": SKY}, "rejected is not one message"),
        (
            {"prompt": SKY, "chosen": [], "rejected": GREEN},
            r"chosen is \[\], not a list of messages",
        ),
        (
            {"prompt": [{"role": "tool", "content": "x"}], "chosen": BLUE, "rejected": GREEN},
            "message 1 of prompt has the role 'tool'",
        ),
        (
            {"prompt": SKY, "chosen": [BLUE[0] | {"tool_calls": [1]}], "rejected": GREEN},
            "has 'tool_calls', which would be lost",
        ),
        (
            {"prompt": SKY, "chosen": [BLUE[0] | {"content": [1]}], "rejected": GREEN},
            r"the content of message 1 of chosen is \[1\], not text",
        ),
        ({"prompt": SKY, "chosen": ["x"], "rejected": GREEN}, "message 1 of chosen is 'x'"),
        (
            {"prompt": "Hi", "chosen": "a", "rejected": "b", "images": ["x"]},
            "it has images, which would be lost",
        ),
    ],
)
def test_a_row_that_is_no_preference_is_refused(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        trl.read(row, 1)
