"""The one table of a comparison: each approach's quality, cost, memory, latency, forgetting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.models import Run
from training.selectors.findings import Figure, figure_of

#: What people call the figures of answers.
NAMES = {
    "answer/f1": "F1", "answer/exact": "exact", "answer/field_f1": "field F1",
    "answer/parsed": "readable JSON", "classify/accuracy": "accuracy",
    "classify/macro_f1": "macro-F1", "answer/recall": "recall", "answer/mrr": "MRR",
    "answer/cited_precision": "citations that hold",
}  # fmt: skip


@dataclass(frozen=True)
class Approach:
    """One row of the table; a failed one has its reason alone."""

    title: str
    reason: str
    quality: list[tuple[str, Figure]]
    retrieval: list[tuple[str, Figure]]
    difference: Figure | None
    cost: Mapping[str, Any]
    memory: Mapping[str, Any]
    latency: Mapping[str, Any]
    #: Perplexity of general text before and after; None where no weight was changed.
    before: Figure | None
    after: Figure | None
    #: In percent; above 0 is what was forgotten.
    forgotten: Figure | None
    stages: list[Mapping[str, Any]]

    @property
    def cpu_s(self) -> float:
        """Without measuring general text, which nobody needs to use the model."""
        return float(self.cost["cpu_s"]) - float(self.cost["cpu_s_measuring_general"])

    @property
    def better(self) -> str:
        """What the interval of the difference to prompting says."""
        if self.difference is None or self.difference.low is None or self.difference.high is None:
            return ""
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else "not told apart"


@dataclass(frozen=True)
class Comparison:
    """All approaches, and what they were measured on."""

    questions: int
    examples: int
    seen: int
    primary: str
    approaches: list[Approach]


def comparison(run: Run) -> Comparison | None:
    """The table of a finished comparison; None for any other run."""
    found = (run.result or {}).get("comparison")
    if not found:
        return None
    return Comparison(
        questions=found["questions"],
        examples=found["examples"],
        seen=found["questions_among_the_examples"],
        primary=NAMES.get(found["primary"], found["primary"]),
        approaches=[approach(row) for row in found["rows"]],
    )


def approach(row: Mapping[str, Any]) -> Approach:
    general = row["forgetting"]
    return Approach(
        title=row["title"],
        reason=row["reason"] or "",
        quality=named(row["quality"]),
        retrieval=named(row["retrieval"]),
        difference=figure_of(row["difference"]) if row["difference"] else None,
        cost=row["cost"] or {},
        memory=row["memory"] or {},
        latency=row["latency"] or {},
        before=figure_of(general["perplexity_before"]) if general else None,
        after=figure_of(general["perplexity_after"]) if general else None,
        forgotten=figure_of(general["change"]).percent if general else None,
        stages=row["stages"] or [],
    )


def named(figures: Mapping[str, Mapping[str, Any]] | None) -> list[tuple[str, Figure]]:
    return [(NAMES.get(name, name), figure_of(value)) for name, value in (figures or {}).items()]
