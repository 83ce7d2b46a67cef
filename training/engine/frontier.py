"""Reward against KL over the steps of an online run: what each nat of drift bought.

Gao et al. 2022 (arXiv 2210.10760) draw reward over the KL of the policy to its
reference; a step is on the frontier where no other reached its reward with as little KL. The
reward is what the policy was trained on, so a rising curve alone does not say that people agree.
Holds no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from training.engine.errors import DataError


@dataclass(frozen=True)
class Point:
    """One step: mean KL to the reference in nats, as its method reports it, and mean reward."""

    step: int
    kl: float
    reward: float
    #: Whether no other step has more reward without more KL.
    best: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def with_frontier(points: Iterable[Point]) -> list[Point]:
    """The points by KL, those of the frontier marked."""
    found: list[Point] = []
    highest = float("-inf")
    for point in sorted(points, key=lambda each: (each.kl, -each.reward, each.step)):
        found.append(Point(point.step, point.kl, point.reward, best=point.reward > highest))
        highest = max(highest, point.reward)
    return found


def of_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """`frontier` of the result, of the rows of data/frontier.jsonl. Raises DataError."""
    points = []
    for number, row in enumerate(rows, start=1):
        try:
            points.append(Point(int(row["step"]), float(row["kl"]), float(row["reward"])))
        except (KeyError, TypeError, ValueError):
            raise DataError(
                f"frontier row {number}: a row is {{step, kl, reward}}, three numbers"
            ) from None
    return [point.as_json() for point in with_frontier(points)]
