from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annotate.formats.prompts import read_prompts
from tests.data import write_rows

ASKED = [{"role": "user", "content": "What is red?"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "What is red?"},
        {"prompt": ASKED},
        {"messages": ASKED},
        {"messages": [*ASKED, {"role": "assistant", "content": "A colour."}]},
        {"instruction": "What is red?"},
        {"instruction": "What is red?", "input": ""},
        {"instruction": "What is red?", "instances": [{"input": "", "output": "A colour."}]},
        '"What is red?"',
    ],
)
def test_every_shape_of_a_prompt(tmp_path: Path, row: Any) -> None:
    found = read_prompts(write_rows(tmp_path / "f.jsonl", [row]))
    assert found.bad_rows == []
    assert found.records[0].messages == ASKED


@pytest.mark.parametrize("where", [{"input": "tomato"}, {"instances": [{"input": "tomato"}]}])
def test_an_instruction_is_followed_by_its_input(tmp_path: Path, where: dict[str, Any]) -> None:
    row = {"instruction": "What colour?"} | where
    found = read_prompts(write_rows(tmp_path / "f.jsonl", [row]))
    assert found.records[0].messages[0]["content"] == "What colour?\n\ntomato"


def test_a_text_file_holds_a_prompt_a_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("What is red?\n\nWhat is blue?\n", encoding="utf-8")
    records = read_prompts(path).records
    assert [(record.line, record.messages[0]["content"]) for record in records] == [
        (1, "What is red?"),
        (3, "What is blue?"),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "?"}, "neither prompt, messages nor instruction"),
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": 3}, "prompt is not text (3)"),
        ({"messages": [{"role": "assistant", "content": "A"}]}, "does not end with a user's"),
        (7, "neither text nor an object but 7"),
        ("{", "not JSON"),
    ],
)
def test_a_row_that_asks_nothing_is_bad(tmp_path: Path, row: Any, reason: str) -> None:
    found = read_prompts(write_rows(tmp_path / "f.jsonl", [row]))
    assert found.records == []
    assert reason in found.bad_rows[0].reason
