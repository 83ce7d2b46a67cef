"""What a finished run of one method found, in the shape that its part of the run page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.models import Run

#: Classes of the largest confusion matrix that is drawn; beyond it the confusions are only named.
LARGEST_MATRIX = 20
#: Steps of shading.
SHADES = 5


@dataclass(frozen=True)
class Figure:
    """A value with the ends of its 95 % interval, each None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def percent(self) -> Figure:
        """The same times 100."""
        ends = (
            None if each is None else 100.0 * each for each in (self.value, self.low, self.high)
        )
        return Figure(*ends)


def figure_in(values: Mapping[str, Any], name: str) -> Figure:
    return Figure(*(values.get(f"{name}{end}") for end in ("", "_low", "_high")))


def figure_of(found: Mapping[str, Any]) -> Figure:
    return Figure(found.get("value"), found.get("low"), found.get("high"))


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

    @property
    def drawn(self) -> bool:
        """Whether the whole confusion matrix is shown."""
        return len(self.lines) <= LARGEST_MATRIX


def classification(run: Run) -> Classification | None:
    result = run.result or {}
    found = result.get("classification")
    if not found:
        return None
    metrics, labels = result.get("metrics", {}), found["labels"]
    lines = [
        Line(label, shaded(labels, counts, number))
        for number, (label, counts) in enumerate(zip(labels, found["confusion"], strict=True))
    ]
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
    )


def shaded(labels: Sequence[str], counts: Sequence[int], own: int) -> list[Said]:
    whole = sum(counts)
    return [
        Said(label, count, -(-SHADES * count // whole) if whole else 0, number == own)
        for number, (label, count) in enumerate(zip(labels, counts, strict=True))
    ]


@dataclass(frozen=True)
class Side:
    """Perplexity of one kind of text before and after."""

    title: str
    before: Figure
    after: Figure
    #: In percent; below 0 where the text is foreseen better.
    change: Figure
    bits_before: float | None
    bits_after: float | None
    documents: int | None
    tokens: int | None
    #: Whether it fell, rose, or is unclear.
    became: str


SIDES = {"domain": "Your domain, held out", "general": "General text"}


def pretraining(run: Run) -> list[Side]:
    """The two sides of a continued pretraining; empty where nothing was measured."""
    result = run.result or {}
    about, metrics = result.get("pretraining") or {}, result.get("metrics") or {}
    return [
        Side(
            title=title,
            before=figure_in(metrics, f"pretrain/{side}_perplexity_before"),
            after=figure_in(metrics, f"pretrain/{side}_perplexity_after"),
            change=figure_in(metrics, f"pretrain/{side}_change").percent,
            bits_before=metrics.get(f"pretrain/{side}_bits_per_byte_before"),
            bits_after=metrics.get(f"pretrain/{side}_bits_per_byte_after"),
            documents=about[side].get("documents"),
            tokens=about[side].get("tokens"),
            became=about[side].get("perplexity", "unclear"),
        )
        for side, title in SIDES.items()
        if isinstance(about.get(side), Mapping)
    ]
