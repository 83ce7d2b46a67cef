"""What every format is read into: one compared pair, with the judgments that came with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from annotate.formats.canonical import Messages


class Unusable(ValueError):
    """Raised by a format for a row it cannot use; the text says why."""


@dataclass(frozen=True)
class SourceJudgment:
    """One annotator's answer about (first, second): "first", "second" or "tie"."""

    annotator: str
    answer: str


@dataclass(frozen=True)
class PairRecord:
    """Two responses to one prompt as a file gave them."""

    line: int
    messages: Messages
    first: str
    second: str
    judgments: list[SourceJudgment] = field(default_factory=list)
    reference: str = ""
    topics: list[str] = field(default_factory=list)


def check_different(first: str, second: str) -> None:
    """Raise Unusable where there is nothing to choose between."""
    if first == second:
        raise Unusable("the two answers are the same text")
