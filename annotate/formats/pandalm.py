"""The PandaLM test set: an instruction, two models' responses, three people's answers.

`annotator1..3` say 0 (similar), 1 (the first is better) or 2 (the second is); they are kept apart.
"""

from __future__ import annotations

from typing import Any

from annotate.formats.records import (
    ComparisonRecord,
    ResponseRecord,
    RowRefused,
    Winner,
    checked_text,
    different,
    shown,
    user_says,
)

NAME = "pandalm"
REFERENCE = "pandalm"
_WINNERS: tuple[Winner, ...] = ("tie", "first", "second")
_ANNOTATORS = ("annotator1", "annotator2", "annotator3")


def looks_like(row: dict[str, Any]) -> bool:
    return {"instruction", "response1", "response2", "annotator1"} <= row.keys()


def parse(row: dict[str, Any], line: int) -> ComparisonRecord:
    instruction = checked_text(row.get("instruction"), "instruction")
    given = checked_text(row.get("input") or "", "input")
    if not instruction.strip():
        raise RowRefused("instruction is empty, so nothing is asked")
    first = checked_text(row.get("response1"), "response1")
    second = checked_text(row.get("response2"), "response2")
    judgments = tuple((f"pandalm:{name}", _winner(row.get(name), name)) for name in _ANNOTATORS)
    different(first, second)
    models = _models(row.get("cmp_key"))
    return ComparisonRecord(
        line=line,
        messages=user_says(f"{instruction}\n\n{given}" if given else instruction),
        first=ResponseRecord(first, models[0]),
        second=ResponseRecord(second, models[1]),
        judgments=judgments,
    )


def _winner(value: Any, name: str) -> Winner:
    # True equals 1 in Python and is no answer of an annotator.
    if isinstance(value, bool) or value not in (0, 1, 2):
        raise RowRefused(f"{name} is {shown(value)}; expected 0 (similar), 1 or 2")
    return _WINNERS[int(value)]


def _models(key: Any) -> tuple[str, str]:
    """`bloom-7b_llama-7b` names the makers of the two responses, in order."""
    names = key.split("_") if isinstance(key, str) else []
    if len(names) != 2 or not all(name.isascii() and 0 < len(name) <= 80 for name in names):
        return REFERENCE, REFERENCE
    return f"{REFERENCE}:{names[0]}", f"{REFERENCE}:{names[1]}"
