"""What a classification run measured, class by class, as its page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.models import Run

#: Confusions that are named; beyond them a long list says little.
NAMED = 12


@dataclass(frozen=True)
class Confusion:
    """Rows of one class that were taken for another."""

    label: str
    taken_for: str
    rows: int
    #: How many rows the class has.
    of: int


@dataclass(frozen=True)
class ClassReport:
    """Every class with precision, recall and F1, and the most frequent confusions."""

    rows: int
    #: As `engine.classify_metrics.per_class` gives them.
    classes: list[dict[str, Any]]
    confusions: list[Confusion]
    #: How many kinds of confusion there are in all.
    kinds: int


def class_report(run: Run) -> ClassReport | None:
    """None for a run that classified nothing held out."""
    found = (run.result or {}).get("classification") or {}
    if not found.get("per_class"):
        return None
    labels, matrix = found["labels"], found["confusion"]
    confusions = [
        Confusion(label, labels[column], rows, sum(matrix[line]))
        for line, label in enumerate(labels)
        for column, rows in enumerate(matrix[line])
        if rows and column != line
    ]
    confusions.sort(key=lambda each: -each.rows)
    return ClassReport(found["rows"], found["per_class"], confusions[:NAMED], len(confusions))
