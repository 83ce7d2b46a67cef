from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annotate.formats.prompts import PromptRecord, read_prompts
from tests.data import write_rows

ASKED = [{"role": "user", "content": "What is red?"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "What is red?"},
        {"prompt": ASKED},
        {"instruction": "What is red?"},
        {"instruction": "What is red?", "input": ""},
        {"instruction": "What is red?", "instances": [{"input": "", "output": "A colour."}]},
    ],
)
def test_every_shape_of_a_prompt(tmp_path: Path, row: Any) -> None:
    found = read_prompts(write_rows(tmp_path / "f.jsonl", [row]))
    assert found == ([PromptRecord(ASKED)], [])


@pytest.mark.parametrize("where", [{"input": "tomato"}, {"instances": [{"input": "tomato"}]}])
def test_an_instruction_is_followed_by_its_input(tmp_path: Path, where: dict[str, Any]) -> None:
    row = {"instruction": "What colour?"} | where
    found = read_prompts(write_rows(tmp_path / "f.jsonl", [row]))
    assert found[0][0].messages[0]["content"] == "What colour?\n\ntomato"


def test_a_text_file_holds_a_prompt_a_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("What is red?\n\nWhat is blue?\n", encoding="utf-8")
    prompts, bad = read_prompts(path)
    assert [one.messages[0]["content"] for one in prompts] == ["What is red?", "What is blue?"]
    assert bad == []


def test_a_line_that_no_database_can_hold_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"x" * 9000 + b"\nWhat\0?\ncaf\xe9\n")
    assert [str(row) for row in read_prompts(path)[1]] == [
        "line 2: the line holds a NUL character",
        "line 3: not UTF-8 text (byte 4 is 0xe9)",
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "?"}, "neither prompt nor instruction"),
        ({"prompt": "  "}, "the prompt is empty, so nothing is asked"),
        ({"prompt": 3}, "prompt is 3, not text"),
        ({"prompt": [{"role": "assistant", "content": "A"}]}, "does not end with a user's"),
        ({"instruction": "What?", "input": 7}, "input is 7, not text"),
        ({"instruction": ["What?"]}, "instruction is ['What?'], not text"),
        ({"instruction": "\0", "instances": ["x"]}, "instruction holds a NUL"),
        (7, "a JSON object was expected, not int"),
        ("{", "not JSON"),
    ],
)
def test_a_row_that_asks_nothing_is_bad(tmp_path: Path, row: Any, reason: str) -> None:
    found = read_prompts(write_rows(tmp_path / "f.jsonl", [row]))
    assert found[0] == []
    assert reason in found[1][0].reason
