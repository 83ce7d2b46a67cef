"""How far a project's queue has come."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, Exists, OuterRef, Q, Sum
from django.utils import timezone

from annotate.models import Assignment, Comparison, Judgment, Project


@dataclass(frozen=True)
class Progress:
    """Counts of one project. A comparison is complete when it waits for nobody: no open place, no
    lease that still holds one."""

    comparisons: int
    judgments: int
    open_slots: int
    live_leases: int
    complete: int

    @property
    def share_complete(self) -> float:
        return self.complete / self.comparisons if self.comparisons else 0.0


def queue_progress(*, project: Project) -> Progress:
    leases = Assignment.objects.filter(state=Assignment.State.LEASED)
    held = Exists(leases.filter(comparison=OuterRef("pk")))
    counts = Comparison.objects.filter(project=project).aggregate(
        comparisons=Count("pk"),
        open_slots=Sum("slots", default=0),
        complete=Count("pk", filter=Q(~held, slots=0)),
    )
    return Progress(
        judgments=Judgment.objects.current().filter(comparison__project=project).count(),
        live_leases=leases.filter(
            comparison__project=project, expires_at__gt=timezone.now()
        ).count(),
        **counts,
    )
