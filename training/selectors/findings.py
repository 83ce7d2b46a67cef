"""Figures with their intervals, and what continued pretraining found, as the run page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.models import Run


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
