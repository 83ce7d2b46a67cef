from __future__ import annotations

from typing import Any

import pytest

from annotate.formats import trl
from annotate.formats.records import RowLeftOut, RowRefused

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
    record = trl.parse(row, 1)
    assert record.messages == [{"role": "user", "content": prompt}]
    assert (record.first.text, record.second.text) == (chosen, rejected)
    assert record.judgments == (("trl:preference", "first"),)


def test_an_implied_prompt_is_whole_words_even_where_one_text_begins_the_other() -> None:
    record = trl.parse({"chosen": "The sky is blue", "rejected": "The sky is blueish"}, 1)
    assert record.messages[0]["content"] == "The sky is"
    assert (record.first.text, record.second.text) == (" blue", " blueish")


def test_a_system_message_and_earlier_turns_stay_in_the_prompt() -> None:
    talk = [{"role": "system", "content": "Be brief."}, *SKY, *BLUE, *SKY]
    record = trl.parse({"chosen": talk + BLUE, "rejected": talk + GREEN}, 1)
    assert record.messages == talk


def test_keys_that_parquet_added_without_a_value_say_nothing() -> None:
    padded = [message | {"name": None} for message in SKY]
    assert trl.parse({"prompt": padded, "chosen": BLUE, "rejected": GREEN}, 1).messages == SKY


def test_content_in_text_parts_is_joined() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "What colour is the sky?"}]}]
    assert trl.parse({"prompt": parts, "chosen": BLUE, "rejected": GREEN}, 1).messages == SKY


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Hello"},
        {"chosen": "Same text", "rejected": "Same text"},
        {"prompt": SKY, "chosen": BLUE, "rejected": BLUE},
        {"chosen": SKY + BLUE, "rejected": SKY + BLUE},
    ],
)
def test_equal_answers_are_left_out(row: dict[str, Any]) -> None:
    with pytest.raises(RowLeftOut, match="nothing to compare"):
        trl.parse(row, 1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Hi", "chosen": 1, "rejected": "b"}, "chosen is not text \\(1\\)"),
        ({"prompt": "Hi", "chosen": "a"}, "rejected is not text \\(missing\\)"),
        ({"prompt": 7, "chosen": "a", "rejected": "b"}, "prompt is not text \\(7\\)"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "prompt is empty"),
        ({"prompt": BLUE, "chosen": BLUE, "rejected": GREEN}, "does not end with a user's message"),
        ({"chosen": "Red", "rejected": "Blue"}, "share no beginning"),
        ({"prompt": SKY, "chosen": BLUE, "rejected": "Green."}, "the other a list of messages"),
        ({"chosen": BLUE, "rejected": GREEN}, "share no user's message"),
        ({"prompt": SKY, "chosen": BLUE + SKY, "rejected": GREEN}, "chosen is not one message"),
        ({"prompt": SKY, "chosen": BLUE, "rejected": SKY}, "rejected is not one message"),
        ({"prompt": SKY, "chosen": [], "rejected": GREEN}, "chosen is not a list of messages"),
        (
            {"prompt": [{"role": "tool", "content": "x"}], "chosen": BLUE, "rejected": GREEN},
            "message 1 of prompt has the role 'tool'",
        ),
        (
            {"prompt": SKY, "chosen": [BLUE[0] | {"tool_calls": [1]}], "rejected": GREEN},
            "has 'tool_calls', which would be lost",
        ),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b", "images": ["x"]}, "it has 'images'"),
    ],
)
def test_a_row_that_is_no_preference_is_refused(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowRefused, match=reason):
        trl.parse(row, 1)
