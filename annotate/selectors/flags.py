"""Flags that wait for an admin."""

from __future__ import annotations

from django.db.models import QuerySet

from annotate.models import Flag, Project


def flags_of(*, project: Project, settled: bool = False) -> QuerySet[Flag]:
    """A project's flags that wait (or were dealt with), the newest first."""
    return (
        Flag.objects.filter(comparison__project=project, settled_at__isnull=not settled)
        .select_related("annotator__user", "settled_by", "comparison__project")
        .order_by("-pk")
    )
