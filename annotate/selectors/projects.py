"""Projects with the guidelines that are in force."""

from __future__ import annotations

from django.db.models import OuterRef, QuerySet, Subquery

from annotate.models import Guideline, Project
from rlhf_platform.accounts.models import Membership, Role


def projects_for(membership: Membership) -> QuerySet[Project]:
    """The projects a member may know of, each with its `guideline_version`, `_text`, `_labels` and
    `_form`.

    Whoever only judges sees the open ones.
    """
    latest = Guideline.objects.filter(project=OuterRef("pk")).order_by("-version")
    found = Project.objects.filter(workspace=membership.workspace).annotate(
        guideline_version=Subquery(latest.values("version")[:1]),
        guideline_text=Subquery(latest.values("text")[:1]),
        guideline_labels=Subquery(latest.values("labels")[:1]),
        guideline_form=Subquery(latest.values("form")[:1]),
    )
    if not membership.allows(Role.RESEARCHER):
        found = found.filter(state=Project.State.OPEN)
    return found.order_by("name", "pk")
