"""What a classification run measured, as a whole and class by class, as its page shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.models import Run
from training.selectors.findings import Figure, figure_in

#: Classes of the largest confusion matrix that is drawn; beyond it the confusions are only named.
LARGEST_MATRIX = 20
#: Steps of shading.
SHADES = 5
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
class Said:
    """How many rows of one label were taken for another, and how dark that cell is."""

    label: str
    count: int
    #: 0 (none) to SHADES, by the share of the true label's rows.
    shade: int
    right: bool


@dataclass(frozen=True)
class Line:
    """One line of a confusion matrix."""

    label: str
    said: list[Said]


@dataclass(frozen=True)
class Classification:
    """What a classifier was measured at."""

    rows: int
    accuracy: Figure
    macro_f1: Figure
    log_loss: Figure
    ece: float | None
    majority: str
    guessed: Figure
    lines: list[Line]
    #: Bins of confidence that hold rows.
    bins: list[Mapping[str, Any]]
    #: Every class, as `engine.classify_metrics.per_class` gives them.
    classes: list[dict[str, Any]]
    #: The most frequent ones.
    confusions: list[Confusion]
    #: How many kinds of confusion there are in all.
    kinds: int

    @property
    def drawn(self) -> bool:
        """Whether the whole confusion matrix is shown."""
        return len(self.lines) <= LARGEST_MATRIX


def classification(run: Run) -> Classification | None:
    """None for a run that classified nothing held out."""
    result = run.result or {}
    found = result.get("classification")
    if not found:
        return None
    metrics, labels = result.get("metrics", {}), found["labels"]
    lines = [
        Line(label, shaded(labels, counts, number))
        for number, (label, counts) in enumerate(zip(labels, found["confusion"], strict=True))
    ]
    mistaken = confusions(labels, found["confusion"])
    return Classification(
        rows=found["rows"],
        accuracy=figure_in(metrics, "classify/accuracy"),
        macro_f1=figure_in(metrics, "classify/macro_f1"),
        log_loss=figure_in(metrics, "classify/log_loss"),
        ece=found["calibration"]["ece"],
        majority=found["majority"]["label"],
        guessed=figure_in(found["majority"], "accuracy"),
        lines=lines,
        bins=[each for each in found["calibration"]["bins"] if each["rows"]],
        classes=found["per_class"],
        confusions=mistaken[:NAMED],
        kinds=len(mistaken),
    )


def confusions(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> list[Confusion]:
    """The most frequent first. matrix: rows of each label, in columns by what was said."""
    found = [
        Confusion(label, labels[column], rows, sum(matrix[line]))
        for line, label in enumerate(labels)
        for column, rows in enumerate(matrix[line])
        if rows and column != line
    ]
    return sorted(found, key=lambda each: -each.rows)


def shaded(labels: Sequence[str], counts: Sequence[int], own: int) -> list[Said]:
    whole = sum(counts)
    return [
        Said(label, count, -(-SHADES * count // whole) if whole else 0, number == own)
        for number, (label, count) in enumerate(zip(labels, counts, strict=True))
    ]
