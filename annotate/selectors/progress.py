"""How far a project's queue is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Count, Sum

from annotate.models import Assignment, Comparison, Judgment, Project


@dataclass(frozen=True)
class Progress:
    """Comparisons in all, those that need nobody any more, and what is still to be judged."""

    comparisons: int
    complete: int
    judgments: int
    open_slots: int
    live_leases: int


def queue_progress(*, project: Project) -> Progress:
    return queue_progress_of(projects=[project])[project.pk]


def queue_progress_of(*, projects: Sequence[Project]) -> dict[int, Progress]:
    """The progress of each project by its id, in four statements whatever their number."""
    # Apart, since each is answered by an index of its own: all by project, the open by slots > 0.
    compared = Comparison.objects.filter(project__in=projects, group=None).order_by()
    totals = dict(compared.values_list("project").annotate(n=Count("pk")))
    waiting = {
        project: (n, slots)
        for project, n, slots in compared.filter(slots__gt=0)
        .values_list("project")
        .annotate(n=Count("pk"), free=Sum("slots"))
    }
    leased = {
        project: (n, comparisons)
        for project, n, comparisons in Assignment.objects.filter(
            workspace__in={project.workspace_id for project in projects},
            comparison__project__in=projects,
            state=Assignment.State.LEASED,
            is_repeat=False,
        )
        .order_by()
        .values_list("comparison__project")
        .annotate(n=Count("pk"), comparisons=Count("comparison", distinct=True))
    }
    judged = dict(
        Judgment.objects.current()
        .filter(comparison__project__in=projects, comparison__group=None)
        .order_by()
        .values_list("comparison__project")
        .annotate(n=Count("pk"))
    )
    found = {}
    for project in projects:
        total = totals.get(project.pk, 0)
        waiting_n, slots = waiting.get(project.pk, (0, 0))
        leases, in_hand = leased.get(project.pk, (0, 0))
        found[project.pk] = Progress(
            comparisons=total,
            complete=max(0, total - waiting_n - in_hand),
            judgments=judged.get(project.pk, 0),
            open_slots=slots,
            live_leases=leases,
        )
    return found
