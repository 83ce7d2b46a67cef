"""How often the new model's answer beats the old one's; a tie counts half. Holds no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.engine.errors import DataError
from training.engine.human_agreement import estimate
from training.engine.intervals import right

WINS = {"second": 1.0, "tie": 0.5, "first": 0.0}


def by_scores(new: Sequence[float], old: Sequence[float], prompts: Sequence[str]) -> Any:
    """Win rate by a reward model. new, old: scores of the answers to the same prompts."""
    return estimate(right([a - b for a, b in zip(new, old, strict=True)]), prompts)


def by_judge(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Win rate of judged.jsonl, whose `first` is the old answer and `second` the new one.

    Rows without a choice (failed) are left out and counted; a position flip is a tie already.
    Rows that name an annotator are people's; `people` says how many gave them.
    Raises DataError for a choice that is none.
    """
    values: list[float | None] = []
    for number, row in enumerate(rows, start=1):
        choice = row.get("choice")
        if choice is not None and choice not in tuple(WINS):
            raise DataError(f"judged row {number}: choice is {choice!r}, not first, second or tie")
        values.append(None if choice is None else WINS[choice])
    clusters = [str(row.get("prompt_id", row.get("id", n))) for n, row in enumerate(rows)]
    return {
        "rate": estimate(values, clusters),
        "people": len({row["annotator"] for row in rows if row.get("annotator") is not None}),
        "failed": sum(value is None for value in values),
        "flipped": sum(row.get("flipped") is True for row in rows),
    }
