"""Making and changing projects."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django.db import IntegrityError, transaction
from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce, Greatest

from annotate.errors import AnnotateError
from annotate.models import Assignment, Comparison, Guideline, Judgment, Project
from rlhf_platform.accounts.models import User, Workspace

#: A lease may last a week: longer, and nobody else ever gets the comparison.
LONGEST_LEASE_S = 7 * 86400


def create_project(
    *,
    workspace: Workspace,
    name: str,
    slug: str,
    overlap: int = 1,
    guidelines: str = "",
    actor: User | None = None,
) -> Project:
    """A project with version 1 of its guidelines. Raises AnnotateError for a taken or bad slug."""
    try:
        validate_slug(slug)
    except ValidationError:
        raise AnnotateError(
            f"{slug!r} cannot be a project's short name: use letters, digits, - and _"
        ) from None
    if not 1 <= overlap <= 100:
        raise AnnotateError(f"overlap is {overlap}; allowed: 1 to 100")
    try:
        with transaction.atomic():
            project = Project.objects.create(
                workspace=workspace, name=name, slug=slug, overlap=overlap, created_by=actor
            )
            Guideline.objects.create(project=project, version=1, text=guidelines)
    except IntegrityError:
        raise AnnotateError(f"the workspace already has a project {slug!r}") from None
    return project


def update_project(
    *,
    project: Project,
    name: str | None = None,
    state: str | None = None,
    overlap: int | None = None,
    allow_tie: bool | None = None,
    allow_both_bad: bool | None = None,
    lease_s: int | None = None,
    guidelines: str | None = None,
) -> Project:
    """Change what is given. A new text of the guidelines is a new version; judgments keep theirs.

    A new overlap moves the free places of every comparison: judged + leased + slots = overlap. A
    comparison with more judgments and leases than the new overlap keeps them all and wants no more.
    Raises AnnotateError for what no project can have.
    """
    if name is not None and not name.strip():
        raise AnnotateError("a project needs a name")
    if state is not None and state not in Project.State.values:
        raise AnnotateError(f"state {state!r} is none of {', '.join(Project.State.values)}")
    if overlap is not None and not 1 <= overlap <= 100:
        raise AnnotateError(f"overlap is {overlap}; allowed: 1 to 100")
    if lease_s is not None and not 10 <= lease_s <= LONGEST_LEASE_S:
        raise AnnotateError(f"the lease is {lease_s} s; allowed: 10 to {LONGEST_LEASE_S}")
    with transaction.atomic():
        # The project's row serialises two changes, which would otherwise move the slots twice.
        locked = Project.objects.select_for_update().get(pk=project.pk)
        if overlap is not None and overlap != locked.overlap:
            move_slots(project=locked, overlap=overlap)
        asked = {
            "name": name.strip() if name is not None else None,
            "state": state,
            "overlap": overlap,
            "allow_tie": allow_tie,
            "allow_both_bad": allow_both_bad,
            "lease_s": lease_s,
        }
        changed = {field: value for field, value in asked.items() if value is not None}
        for field, value in changed.items():
            setattr(locked, field, value)
        locked.save(update_fields=list(changed))
        if guidelines is not None:
            revise_guidelines(project=locked, text=guidelines)
    project.refresh_from_db()
    return project


def revise_guidelines(*, project: Project, text: str) -> Guideline:
    """The newest guidelines: the ones there are where the text is the same, else a new version."""
    newest = project.guidelines.order_by("-version").first()
    if newest is not None and newest.text == text:
        return newest
    return Guideline.objects.create(
        project=project, version=newest.version + 1 if newest else 1, text=text
    )


def move_slots(*, project: Project, overlap: int) -> None:
    """Set the free places of every comparison of the project to what a new overlap leaves."""
    compared = Comparison.objects.filter(project=project)
    # Locked before they are counted: a place taken meanwhile is then seen by the count.
    list(compared.order_by("pk").select_for_update().values_list("pk", flat=True))
    held = Assignment.objects.filter(state__in=Assignment.HOLDING)
    imported = Judgment.objects.current().filter(assignment__isnull=True)
    compared.update(
        slots=Greatest(
            Value(0),
            Value(overlap) - how_many(held) - how_many(imported),
            output_field=IntegerField(),
        )
    )


def how_many(rows: QuerySet) -> Coalesce:
    """The number of these rows that belong to the comparison being updated."""
    counted = (
        rows.filter(comparison=OuterRef("pk"))
        .order_by()
        .values("comparison")
        .annotate(n=Count("pk"))
        .values("n")
    )
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)
