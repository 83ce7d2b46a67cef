"""TRL's preference layouts: with or without a prompt column, as texts or as messages."""

from __future__ import annotations

from typing import Any

from annotate.formats.canonical import Messages, messages_problem, text_problem
from annotate.formats.records import PairRecord, SourceJudgment, Unusable

ANNOTATOR = "import:chosen"


def recognises(row: dict[str, Any]) -> bool:
    return {"chosen", "rejected"} <= set(row)


def read(row: dict[str, Any], line: int) -> PairRecord:
    """One row as a pair. Raises Unusable."""
    for side in ("chosen", "rejected"):
        if side not in row:
            raise Unusable(f"{side} is missing")
    prompt = row.get("prompt")
    chosen, first = split(prompt, row["chosen"], "chosen")
    rejected, second = split(prompt, row["rejected"], "rejected")
    if chosen != rejected:
        raise Unusable("chosen and rejected answer different prompts")
    if first == second:
        raise Unusable("the two answers are the same text")
    return PairRecord(
        line=line,
        messages=chosen,
        first=first,
        second=second,
        judgments=[SourceJudgment(ANNOTATOR, "first")],
        reference="trl",
    )


def split(prompt: object, answer: object, side: str) -> tuple[Messages, str]:
    """(conversation up to the answer, the answer) of one side."""
    asked = as_messages(prompt, "prompt") if prompt is not None else []
    if isinstance(answer, str):
        problem = text_problem(answer, side)
        if problem:
            raise Unusable(problem)
        if not asked:
            raise Unusable(f"{side} is a text without a prompt, so where it begins is not known")
        return asked, answer
    problem = messages_problem(answer, side)
    if problem:
        raise Unusable(problem)
    messages = as_messages(answer, side)
    if messages[-1]["role"] != "assistant":
        raise Unusable(f"{side} does not end with an assistant message")
    conversation = [*asked, *messages[:-1]]
    if not conversation:
        raise Unusable(f"{side} has no prompt")
    return conversation, messages[-1]["content"]


def as_messages(value: object, name: str) -> Messages:
    if isinstance(value, str):
        problem = text_problem(value, name)
        if problem:
            raise Unusable(problem)
        return [{"role": "user", "content": value}]
    problem = messages_problem(value, name)
    if problem:
        raise Unusable(problem)
    assert isinstance(value, list)  # noqa: S101 - messages_problem says so
    return [{"role": message["role"], "content": message["content"]} for message in value]
