"""How far a project's queue is."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, Q, Sum

from annotate.models import Assignment, Judgment, Project


@dataclass(frozen=True)
class Progress:
    """Comparisons in all, those that need nobody any more, and what is still to be judged."""

    comparisons: int
    complete: int
    judgments: int
    open_slots: int
    live_leases: int


def queue_progress(*, project: Project) -> Progress:
    totals = project.comparisons.aggregate(
        comparisons=Count("pk"), open=Count("pk", filter=Q(slots__gt=0)), slots=Sum("slots")
    )
    leases = Assignment.objects.filter(
        comparison__project=project, state=Assignment.State.LEASED
    ).aggregate(n=Count("pk"), comparisons=Count("comparison", distinct=True))
    return Progress(
        comparisons=totals["comparisons"],
        complete=max(0, totals["comparisons"] - totals["open"] - leases["comparisons"]),
        judgments=Judgment.objects.current().filter(comparison__project=project).count(),
        open_slots=totals["slots"] or 0,
        live_leases=leases["n"],
    )
