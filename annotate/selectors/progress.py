"""How far a project's queue is."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, Sum

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
    # Apart, since each is answered by an index of its own: all by project, the open by slots > 0.
    comparisons = project.comparisons.count()
    waiting = project.comparisons.filter(slots__gt=0).aggregate(n=Count("pk"), slots=Sum("slots"))
    leases = Assignment.objects.filter(
        workspace=project.workspace_id,
        comparison__project=project,
        state=Assignment.State.LEASED,
    ).aggregate(n=Count("pk"), comparisons=Count("comparison", distinct=True))
    return Progress(
        comparisons=comparisons,
        complete=max(0, comparisons - waiting["n"] - leases["comparisons"]),
        judgments=Judgment.objects.current().filter(comparison__project=project).count(),
        open_slots=waiting["slots"] or 0,
        live_leases=leases["n"],
    )
