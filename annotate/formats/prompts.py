"""Files of prompts: rows with `prompt` (text or messages), self-instruct rows, or plain text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annotate.errors import BadRow, ImportRefused
from annotate.formats.canonical import Messages
from annotate.formats.pandalm import instruction_text
from annotate.formats.reading import read_rows, read_text
from annotate.formats.records import Unusable
from annotate.formats.trl import as_messages


def read_prompts(path: Path) -> tuple[list[Messages], list[BadRow]]:
    """Every prompt of a file, or why its row has none. Raises NotFound or ImportRefused."""
    prompts: list[Messages] = []
    bad: list[BadRow] = []
    if path.suffix == ".txt" and path.is_file():
        lines = [line.strip() for line in read_text(path).split("\n")]
        return [[{"role": "user", "content": line}] for line in lines if line], []
    for line, row in read_rows(path):
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        try:
            prompts.append(one_prompt(row))
        except Unusable as reason:
            bad.append(BadRow(line, str(reason)))
    if not prompts and not bad:
        raise ImportRefused(f"{path} is empty")
    return prompts, bad


def one_prompt(row: dict[str, Any]) -> Messages:
    if "prompt" in row:
        messages = as_messages(row["prompt"], "prompt")
    elif isinstance(row.get("instruction"), str):
        instances = row.get("instances") or [{}]
        text = instruction_text({"input": row.get("input"), **instances[0], **row_head(row)})
        messages = as_messages(text, "instruction")
    else:
        raise Unusable("neither prompt nor instruction is there")
    if messages[-1]["role"] == "assistant":
        raise Unusable("the prompt ends with an assistant message")
    if not messages[-1]["content"].strip():
        raise Unusable("the prompt is empty")
    return messages


def row_head(row: dict[str, Any]) -> dict[str, Any]:
    return {"instruction": row["instruction"]}
