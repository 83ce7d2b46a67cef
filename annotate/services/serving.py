"""Who gets which comparison next. Overlap is exact: judged + leased + slots = overlap, always.

On PostgreSQL a comparison is picked with SKIP LOCKED, on SQLite inside an IMMEDIATE transaction, so
two people never take the same last place.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from django.db import connection, transaction
from django.db.models import DateTimeField, Exists, ExpressionWrapper, F, OuterRef, QuerySet
from django.db.models.functions import Now

from annotate.errors import LeaseLost, ProjectClosed
from annotate.models import Annotator, Assignment, Comparison, Judgment, Project
from annotate.models.comparisons import ResponseOrigin
from rlhf_platform.accounts.models import User, Workspace

State = Assignment.State
#: Overdue leases taken back per request; more than one request's worth never piles up.
EXPIRE_AT_ONCE = 50


def annotator_for(*, user: User, workspace: Workspace) -> Annotator:
    """The member's annotator row, made on first use."""
    annotator, _ = Annotator.objects.get_or_create(
        workspace=workspace, user=user, defaults={"kind": Annotator.Kind.MEMBER}
    )
    return annotator


def live_assignment(*, project: Project, annotator: Annotator) -> Assignment | None:
    """What this person holds in this project, if its lease still runs."""
    return (
        Assignment.objects.filter(
            comparison__project=project,
            annotator=annotator,
            state=State.LEASED,
            expires_at__gt=Now(),
        )
        .select_related(
            "comparison__prompt", "comparison__response_a", "comparison__response_b", "guideline"
        )
        .order_by("leased_at")
        .first()
    )


def expire_leases(*, project: Project) -> int:
    """Give the places of overdue leases back; returns how many."""
    overdue = Assignment.objects.filter(
        comparison__project=project, state=State.LEASED, expires_at__lte=Now()
    ).values_list("pk", "comparison_id")[:EXPIRE_AT_ONCE]
    expired = 0
    for pk, comparison_id in overdue:
        with transaction.atomic():
            # Conditional, so that of two requests that see the same overdue lease one frees it.
            if Assignment.objects.filter(pk=pk, state=State.LEASED, expires_at__lte=Now()).update(
                state=State.EXPIRED
            ):
                Comparison.objects.filter(pk=comparison_id).update(slots=F("slots") + 1)
                expired += 1
    return expired


def open_for(*, project: Project, annotator: Annotator) -> QuerySet[Comparison]:
    """Comparisons with a free place that this person may judge, in serving order."""
    held = Assignment.objects.filter(
        comparison=OuterRef("pk"),
        annotator=annotator,
        state__in=[State.LEASED, State.JUDGED, State.SKIPPED],
    )
    judged = Judgment.objects.filter(comparison=OuterRef("pk"), annotator=annotator)
    open_ones = Comparison.objects.filter(project=project, slots__gt=0)
    open_ones = open_ones.filter(~Exists(held), ~Exists(judged))
    if annotator.user_id is not None:
        own = ResponseOrigin.objects.filter(author=annotator.user_id)
        open_ones = open_ones.filter(
            ~Exists(own.filter(response=OuterRef("response_a"))),
            ~Exists(own.filter(response=OuterRef("response_b"))),
        )
    return open_ones.order_by(F("priority").desc(), "random_key")


def next_assignment(*, project: Project, annotator: Annotator) -> Assignment | None:
    """What to judge next: the live lease, or a new one, or None when nothing is left for them.

    Raises ProjectClosed for a paused or closed project.
    """
    if project.state != Project.State.OPEN:
        raise ProjectClosed(f"{project} is {project.get_state_display().lower()} at the moment")
    held = live_assignment(project=project, annotator=annotator)
    if held is not None:
        return held
    expire_leases(project=project)
    with transaction.atomic():
        candidates = open_for(project=project, annotator=annotator)
        if connection.features.has_select_for_update_skip_locked:
            candidates = candidates.select_for_update(skip_locked=True, of=("self",))
        comparison = candidates.first()
        if comparison is None:
            return None
        if not Comparison.objects.filter(pk=comparison.pk, slots__gt=0).update(
            slots=F("slots") - 1
        ):
            return None
        Assignment.objects.create(
            workspace=project.workspace,
            comparison=comparison,
            annotator=annotator,
            swapped=bool(secrets.randbits(1)),
            guideline=project.guidelines.order_by("-version").first(),
            expires_at=lease_end(project),
        )
    return live_assignment(project=project, annotator=annotator)


def lease_end(project: Project) -> ExpressionWrapper:
    """When a lease taken now ends, by the database's clock."""
    return ExpressionWrapper(
        Now() + timedelta(seconds=project.lease_s), output_field=DateTimeField()
    )


def skip_assignment(*, assignment: Assignment, annotator: Annotator) -> Assignment:
    """Put a comparison aside for good; its place is free again. Raises LeaseLost."""
    with transaction.atomic():
        mine = Assignment.objects.filter(pk=assignment.pk, annotator=annotator, state=State.LEASED)
        if not mine.update(state=State.SKIPPED):
            raise LeaseLost("this comparison is no longer yours to skip")
        Comparison.objects.filter(pk=assignment.comparison_id).update(slots=F("slots") + 1)
    assignment.refresh_from_db()
    return assignment
