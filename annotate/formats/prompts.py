"""Files of prompts: rows with `prompt` (text or messages), self-instruct rows, or plain text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotate.errors import BadRow, ImportRefused
from annotate.formats.canonical import Messages, asks_nothing
from annotate.formats.pandalm import instruction_text
from annotate.formats.reading import read_lines, read_rows
from annotate.formats.records import Unusable
from annotate.formats.topics import topics_of
from annotate.formats.trl import as_messages, text


@dataclass(frozen=True)
class PromptRecord:
    """One prompt as a file gave it."""

    messages: Messages
    topics: list[str] = field(default_factory=list)


def read_prompts(path: Path) -> tuple[list[PromptRecord], list[BadRow]]:
    """Every prompt of a file, or why its row has none. Raises NotFound or ImportRefused."""
    prompts: list[PromptRecord] = []
    bad: list[BadRow] = []
    plain = path.name.endswith((".txt", ".txt.gz"))
    for line, row in read_lines(path) if plain else read_rows(path):
        if isinstance(row, BadRow):
            bad.append(row)
        elif not isinstance(row, str) or row.strip():
            try:
                if isinstance(row, str):
                    prompts.append(PromptRecord(one_prompt(row.strip())))
                else:
                    prompts.append(PromptRecord(one_prompt(row), topics_of(row)))
            except Unusable as reason:
                bad.append(BadRow(line, str(reason)))
    if not prompts and not bad:
        raise ImportRefused(f"{path} holds no prompts")
    return prompts, bad


def one_prompt(row: str | dict[str, Any]) -> Messages:
    """A line of plain text or a row as a conversation that waits for an answer."""
    if isinstance(row, str):
        messages = as_messages(row, "the line")
    elif row.get("prompt") is not None:
        messages = as_messages(row["prompt"], "prompt")
    elif row.get("instruction") is not None:
        parts = {
            "instruction": text(row["instruction"], "instruction"),
            "input": text(input_of(row), "input"),
        }
        messages = as_messages(instruction_text(parts), "instruction")
    else:
        raise Unusable("neither prompt nor instruction is there")
    problem = asks_nothing(messages, "the prompt")
    if problem:
        raise Unusable(problem)
    return messages


def input_of(row: dict[str, Any]) -> Any:
    """What an instruction is about; self-instruct's files keep it in the first instance."""
    instances = row.get("instances")
    if isinstance(instances, list) and instances and isinstance(instances[0], dict):
        return instances[0].get("input") or ""
    return row.get("input") or ""
