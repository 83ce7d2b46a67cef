"""Who judges how fast, in active time."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import median

from annotate.models import Annotator, Judgment, Project


@dataclass(frozen=True)
class Pace:
    """One annotator's work: judgments, active seconds, judgments per active hour."""

    annotator: Annotator
    judgments: int
    active_s: float
    judgments_per_hour: float | None
    median_active_s: float | None


def annotator_throughput(*, project: Project) -> list[Pace]:
    """The pace of everyone who judged in this project here (imports carry no times)."""
    rows = (
        Judgment.objects.standing()
        .filter(
            comparison__project=project,
            comparison__group=None,
            annotator__kind=Annotator.Kind.MEMBER,
        )
        .values_list("annotator_id", "active_ms")
    )
    times: dict[int, list[int | None]] = defaultdict(list)
    for annotator, active_ms in rows:
        times[annotator].append(active_ms)
    people = Annotator.objects.select_related("user").in_bulk(list(times))
    paces = []
    for pk, given in times.items():
        known = [active_ms / 1000 for active_ms in given if active_ms is not None]
        active_s = sum(known)
        paces.append(
            Pace(
                annotator=people[pk],
                judgments=len(given),
                active_s=active_s,
                judgments_per_hour=len(known) * 3600 / active_s if active_s else None,
                median_active_s=median(known) if known else None,
            )
        )
    return sorted(paces, key=lambda pace: -pace.judgments)
