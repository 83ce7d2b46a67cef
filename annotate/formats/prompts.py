"""Prompt files: JSON lines, JSON lists or Parquet with prompts, or plain text with one a line.

A row may hold `prompt` (text or messages), `messages` (a final answer of the assistant is cut off),
or an `instruction` with its `input` or, as in self-instruct's files, `instances[0].input`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotate.errors import BadRow
from annotate.formats.reading import Row, read_lines, read_rows
from annotate.formats.records import (
    Message,
    PromptRecord,
    RowRefused,
    checked_messages,
    checked_prompt,
    checked_text,
    shown,
    user_says,
)


@dataclass
class PromptFile:
    records: list[PromptRecord] = field(default_factory=list)
    bad_rows: list[BadRow] = field(default_factory=list)

    @property
    def conversations(self) -> list[list[Message]]:
        return [record.messages for record in self.records]


def read_prompts(path: Path | str) -> PromptFile:
    result = PromptFile()
    plain = Path(path).name.endswith((".txt", ".txt.gz"))
    for row in read_lines(path) if plain else read_rows(path):
        try:
            result.records.append(PromptRecord(row.line, _prompt(row, plain)))
        except RowRefused as error:
            result.bad_rows.append(BadRow(row.line, str(error)))
    return result


def _prompt(row: Row, plain: bool) -> list[Message]:
    if row.problem:
        raise RowRefused(row.problem)
    value = row.value
    if isinstance(value, str):
        return _asked(value, "the line" if plain else "the prompt")
    if not isinstance(value, dict):
        raise RowRefused(f"neither text nor an object but {shown(value)}")
    if isinstance(value.get("prompt"), list):
        return checked_prompt(value["prompt"])
    if value.get("prompt") is not None:
        return _asked(value["prompt"], "prompt")
    if value.get("messages") is not None:
        messages = checked_messages(value["messages"], "messages")
        if len(messages) > 1 and messages[-1]["role"] == "assistant":
            messages.pop()
        return checked_prompt(messages, "messages")
    if value.get("instruction") is not None:
        instruction = checked_text(value["instruction"], "instruction")
        given = checked_text(_input(value), "input")
        return _asked(f"{instruction}\n\n{given}" if given else instruction, "instruction")
    raise RowRefused("it has neither prompt, messages nor instruction")


def _input(row: dict[str, Any]) -> Any:
    instances = row.get("instances")
    if isinstance(instances, list) and instances and isinstance(instances[0], dict):
        return instances[0].get("input") or ""
    return row.get("input") or ""


def _asked(text: Any, name: str) -> list[Message]:
    if not checked_text(text, name).strip():
        raise RowRefused(f"{name} is empty, so nothing is asked")
    return user_says(text)
