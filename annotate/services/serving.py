"""Who gets which comparison next. Overlap is exact: judged + leased + slots = overlap, always.

Locks are taken in one order, so that no two requests wait for each other: the person, then their
assignment, then its comparison. A lease that ends frees its place in the same transaction; of two
requests that would end it, one finds it ended. On SQLite every write is an IMMEDIATE transaction.
"""

from __future__ import annotations

import secrets
from typing import Any

from django.db import connection, transaction
from django.db.models import (
    Exists,
    F,
    FilteredRelation,
    Func,
    OuterRef,
    Q,
    QuerySet,
    TextField,
    Value,
)
from django.db.models.functions import Now
from django.utils import timezone

from annotate.errors import AnnotateError, LeaseLost, ProjectClosed
from annotate.formats.canonical import text_problem
from annotate.models import Annotator, Assignment, Comparison, Guideline, Judgment, Project
from annotate.models.comparisons import ResponseOrigin
from annotate.services.limits import refuse_entry, refuse_more
from annotate.services.repeating import repeat_for, repeat_is_due
from annotate.services.searching import (
    GUIDELINE_COLUMNS,
    PART_COLUMNS,
    first_open,
    from_now,
    leases_of,
    remember_place,
    search_again_for,
)
from annotate.services.sides import draw_side
from annotate.services.walls import check_one_workspace
from rlhf_platform.accounts.models import User, Workspace
from rlhf_platform.prepared import Prepared, PreparedUpdate

State = Assignment.State
MAX_SKIP_NOTE = 500
#: Overdue leases taken back per look at the queue.
EXPIRE_AT_ONCE = 50


def annotator_for(*, user: User, workspace: Workspace) -> Annotator:
    """The member's annotator row, made on first use."""
    annotator, _ = Annotator.objects.get_or_create(
        workspace=workspace, user=user, defaults={"kind": Annotator.Kind.MEMBER}
    )
    return annotator


def locked_person(annotator: int) -> QuerySet[Annotator]:
    """The person's row; reading it in a transaction makes their other requests wait for its end."""
    rows = Annotator.objects.filter(pk=annotator).only("pk")
    if connection.features.has_select_for_update:
        rows = rows.select_for_update(no_key=True, of=("self",))
    return rows


def lock_person(annotator: Annotator) -> None:
    """One at a time of a person's own requests: two windows would lease two comparisons."""
    if connection.features.has_select_for_update:
        locked_person(annotator.pk).get()


#: What the screen shows of an assignment.
ON_SCREEN = (
    "comparison__prompt", "comparison__response_a", "comparison__response_b", "guideline",
)  # fmt: skip


def live_assignment(*, project: Project, annotator: Annotator) -> Assignment | None:
    """What this person holds in this project, if its lease still runs: what was shown first."""
    return (
        leases_of(project=project, annotator=annotator)
        .select_related(*ON_SCREEN)
        .order_by(F("shown_at").asc(nulls_last=True), "leased_at", "pk")
        .first()
    )


def release(*, assignment_id: int, comparison_id: int, to: str, overdue: bool = False) -> bool:
    """End a lease and free the place it holds, which a repeat does not.

    False where it had ended already (or is not overdue).
    """
    lease = Assignment.objects.filter(pk=assignment_id, state=State.LEASED)
    if overdue:
        lease = lease.filter(expires_at__lte=Now())
    if not lease.update(state=to):
        return False
    holding = Assignment.objects.filter(pk=assignment_id, is_repeat=False)
    freed = Comparison.objects.filter(Exists(holding), pk=comparison_id)
    if freed.update(slots=F("slots") + 1):
        search_again_for(comparison_id)
    return True


def assignment_in_hand(*, user: int, workspace: int, pk: int) -> QuerySet[Assignment]:
    """What an answer to it needs: all by key, and only for the person it was given to."""
    rows = Assignment.objects.filter(annotator__user=user, workspace=workspace, pk=pk)
    return rows.select_related("annotator", "comparison__project", "guideline")


IN_HAND = Prepared(assignment_in_hand)


def overdue_leases(workspace: int) -> QuerySet[Assignment]:
    """Leases of a workspace that have run out and still hold their places."""
    return Assignment.objects.filter(workspace=workspace, state=State.LEASED, expires_at__lte=Now())


def expire_leases(*, project: Project) -> int:
    """Give the places of overdue leases back, in all projects of the workspace (by one index).

    Returns how many were overdue, EXPIRE_AT_ONCE at most.
    """
    overdue = (
        overdue_leases(project.workspace_id)
        .order_by("expires_at")
        .values_list("pk", "comparison_id")[:EXPIRE_AT_ONCE]
    )
    for pk, comparison_id in overdue:
        with transaction.atomic():
            release(assignment_id=pk, comparison_id=comparison_id, to=State.EXPIRED, overdue=True)
    return len(overdue)


def next_assignment(*, project: Project, annotator: Annotator) -> Assignment | None:
    """What to judge next: the live lease, or a new one, or None when nothing is left for them.

    Raises ProjectClosed for a paused or closed project, and its kinds for whoever may not judge in
    it, has to consent first, or has judged enough.
    """
    check_open(project, annotator)
    while True:
        with transaction.atomic():
            look = look_up(project=project, annotator=annotator)
            refuse_entry(project=project, annotator=annotator, part=look)
            if look.held:
                return on_screen(live_assignment(project=project, annotator=annotator), project)
            if not look.overdue:
                refuse_more(project=project, annotator=annotator, part=look)
                return take_lease(project=project, annotator=annotator, look=look)
        # Apart: whoever holds the person must not wait for somebody else's assignment.
        expire_leases(project=project)


def check_open(project: Project, annotator: Annotator) -> None:
    """Raise ProjectClosed for a paused or closed project, AnnotateError across workspaces."""
    check_one_workspace(project, annotator)
    if project.state != Project.State.OPEN:
        raise ProjectClosed(f"{project} is {project.get_state_display().lower()} at the moment")


def on_screen(assignment: Assignment | None, project: Project) -> Assignment | None:
    """The assignment, with the whole lease if it was held ahead until now."""
    if assignment is not None and assignment.shown_at is None:
        Assignment.objects.filter(pk=assignment.pk, shown_at__isnull=True).update(
            shown_at=Now(), expires_at=from_now(project.lease_s)
        )
        assignment.refresh_from_db(fields=["shown_at", "expires_at"])
    return assignment


#: For the rest of the transaction: read the queue in its index's order, and texts by their keys.
#: Without fresh statistics, as after an import, PostgreSQL would read all that is open and sort it;
#: it does not see that one row is wanted, and reads the tables of texts whole.
IN_ORDER = {
    "postgresql": {
        f"no_{name}": Func(
            Value(f"enable_{name}"), Value("off"), Value(True),
            function="set_config", output_field=TextField(),
        )
        for name in ("sort", "seqscan")
    }
}  # fmt: skip


def looked_up(workspace: int, *, project: int, annotator: int) -> QuerySet[Annotator]:
    part = FilteredRelation("participations", condition=Q(participations__project=project))
    rows = locked_person(annotator).annotate(part=part)
    return rows.annotate(
        held=Exists(leases_of(project=project, annotator=annotator)),
        overdue=Exists(overdue_leases(workspace)),
        writes=Exists(ResponseOrigin.objects.filter(author=OuterRef("user"))),
        **PART_COLUMNS,
        **IN_ORDER.get(connection.vendor, {}),
    )


LOOK_UP = Prepared(looked_up)


def look_up(*, project: Project, annotator: Annotator) -> Any:
    """Lock the person and look, in one statement within a transaction.

    Gives a row with `held` (a live lease in the project), `overdue` (a lease of the workspace is),
    `writes` (any response is theirs), and their participation's columns. What it tells may be as
    old as the wait for the lock; `take_lease` looks at leases again.
    """
    return LOOK_UP.first(project.workspace_id, project=project.pk, annotator=annotator.pk)


PLACE_TAKEN = PreparedUpdate(lambda *, pk: Comparison.objects.filter(pk=pk), slots=F("slots") - 1)


def take_lease(*, project: Project, annotator: Annotator, look: Any) -> Assignment | None:
    """A lease of the first open comparison, or the one that a parallel request has just taken.

    Within a transaction that holds the person's lock; look: what `look_up` gave.
    """
    taken = lease_first(project=project, annotator=annotator, look=look)
    return taken or on_screen(live_assignment(project=project, annotator=annotator), project)


def lease_first(
    *, project: Project, annotator: Annotator, look: Any, ahead_s: int | None = None
) -> Assignment | None:
    """A lease of the first free comparison, or of a repeat where one is due.

    Within a transaction that holds the person's lock. With `ahead_s` it is not shown yet and lives
    that many seconds.
    """
    if repeat_is_due(project):
        again = repeat_for(project=project, annotator=annotator, ahead=ahead_s is not None)
        if again is not None:
            return lease_repeat(again, project=project, ahead_s=ahead_s)
    comparison = first_open(
        project=project,
        annotator=annotator,
        look=look,
        lease_s=project.lease_s if ahead_s is None else ahead_s,
        ahead=ahead_s is not None,
    )
    if comparison is None:
        return None
    comparison.project = project
    PLACE_TAKEN.run(pk=comparison.pk)
    order = []
    if project.kind == Project.Kind.RANKINGS:
        order = list(comparison.candidates.values_list("position", flat=True))
        secrets.SystemRandom().shuffle(order)
    remember_place(annotator=annotator, comparison=comparison)
    swapped, ahead = draw_side(comparison.sides_before or "")
    return Assignment.objects.create(
        workspace_id=project.workspace_id,
        comparison=comparison,
        annotator=annotator,
        swapped=swapped,
        sides_ahead=ahead,
        order=order,
        guideline=guideline_of(comparison),
        expires_at=comparison.lease_ends,
        shown_at=timezone.now() if ahead_s is None else None,
    )


def lease_repeat(first: Judgment, *, project: Project, ahead_s: int | None) -> Assignment:
    """The comparison of a judgment, leased to its author once more with the sides swapped.

    It takes no place. Within a transaction that holds the person's lock; ahead_s as in
    `lease_first`.
    """
    before = Assignment.objects.filter(annotator=first.annotator_id).order_by("-pk")
    again = Assignment.objects.create(
        workspace_id=first.workspace_id,
        comparison_id=first.comparison_id,
        annotator_id=first.annotator_id,
        is_repeat=True,
        swapped=not first.swapped,
        # The next one draws on from where the last one left off.
        sides_ahead=before.values_list("sides_ahead", flat=True).first() or "",
        guideline=project.guidelines.order_by("-version").first(),
        expires_at=from_now(project.lease_s if ahead_s is None else ahead_s),
        shown_at=timezone.now() if ahead_s is None else None,
    )
    return Assignment.objects.select_related(*ON_SCREEN, "comparison__project").get(pk=again.pk)


def guideline_of(comparison: Any) -> Guideline | None:
    """The newest guideline from the columns that `lease_first` read with the comparison."""
    values = [getattr(comparison, f"guideline_{name}") for name in GUIDELINE_COLUMNS]
    if values[0] is None:
        return None
    return Guideline.from_db(comparison._state.db, list(GUIDELINE_COLUMNS), values)


@transaction.atomic
def skip_assignment(
    *, assignment: Assignment, annotator: Annotator, reason: str = "", note: str = ""
) -> Assignment:
    """Put a comparison aside for good; its place is free again.

    Raises LeaseLost, or AnnotateError for a reason that is none of SkipReason's, and for a note
    that is too long or without a reason.
    """
    check_reason(reason, note)
    if assignment.annotator_id != annotator.pk or not release(
        assignment_id=assignment.pk, comparison_id=assignment.comparison_id, to=State.SKIPPED
    ):
        raise LeaseLost("this comparison is no longer yours to skip")
    if reason:
        Assignment.objects.filter(pk=assignment.pk).update(skip_reason=reason, skip_note=note)
    assignment.refresh_from_db()
    return assignment


def check_reason(reason: str, note: str) -> None:
    if reason and reason not in Assignment.SkipReason.values:
        known = ", ".join(Assignment.SkipReason.values)
        raise AnnotateError(f"reason {reason[:40]!r} is none of {known}")
    if note and not reason:
        raise AnnotateError("a note goes with a reason")
    if len(note) > MAX_SKIP_NOTE:
        raise AnnotateError(f"the note is longer than {MAX_SKIP_NOTE} characters")
    problem = text_problem(note, "the note")
    if problem:
        raise AnnotateError(problem)
