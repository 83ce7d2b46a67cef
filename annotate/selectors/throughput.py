"""How much each annotator judged, and how long it took them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import median

from annotate.models import Annotator, Judgment, Project


@dataclass(frozen=True)
class Throughput:
    """One annotator's judgments that stand. Times are `None` where none was measured.

    `judgments_per_hour` is per hour of active time, over the judgments whose time was measured.
    """

    annotator: Annotator
    judgments: int
    active_s: float | None
    judgments_per_hour: float | None
    median_active_s: float | None


def annotator_throughput(*, project: Project) -> list[Throughput]:
    """The members who judged in a project, the busiest first; imports carry no times."""
    times: dict[int, list[int]] = defaultdict(list)
    judgments: dict[int, int] = defaultdict(int)
    rows = Judgment.objects.current().filter(
        comparison__project=project, annotator__kind=Annotator.Kind.MEMBER
    )
    for annotator, active_ms in rows.values_list("annotator_id", "active_ms"):
        judgments[annotator] += 1
        if active_ms is not None:
            times[annotator].append(active_ms)
    people = Annotator.objects.select_related("user").in_bulk(list(judgments))
    order = sorted(judgments, key=lambda annotator: (-judgments[annotator], annotator))
    return [_row(people[key], judgments[key], times[key]) for key in order]


def _row(annotator: Annotator, judgments: int, active_ms: list[int]) -> Throughput:
    total = sum(active_ms) / 1000
    return Throughput(
        annotator=annotator,
        judgments=judgments,
        active_s=total if active_ms else None,
        judgments_per_hour=len(active_ms) / total * 3600 if total else None,
        median_active_s=median(active_ms) / 1000 if active_ms else None,
    )
