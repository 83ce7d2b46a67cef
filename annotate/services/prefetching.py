"""Comparisons leased ahead of the one on the screen, so that the next one is painted at once.

A lease that was not shown lives a minute unless it is asked for again, and holds its place like any
other: judged + leased + slots = overlap. Near the end of the queue nobody gets one.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from annotate.errors import LeaseLost
from annotate.models import Annotator, Assignment, Comparison, Judgment, Project, PromptTopic
from annotate.services.limits import refuse_entry
from annotate.services.searching import from_now, leases_of
from annotate.services.serving import (
    ON_SCREEN,
    check_open,
    expire_leases,
    lease_first,
    lock_person,
    look_up,
)

State = Assignment.State
#: Seconds an unshown lease lives unless it is renewed.
UNSHOWN_S = 60
#: The most that one person holds ahead: with the one on the screen enough for a minute without a
#: network at six seconds each.
AHEAD_MOST = 9
#: Nobody holds more ahead than the open comparisons divided by this, so below it nobody does.
SHARE = 10


def allowed_ahead(project: Project, *, held: int) -> int:
    """How many one person may hold ahead who holds so many now: 0 where few comparisons are open.

    What they hold was open before, so it counts: taking one must not lower the number.
    """
    open_ones = Comparison.objects.filter(project=project, slots__gt=0)
    return min(AHEAD_MOST, (held + open_ones[: AHEAD_MOST * SHARE].count()) // SHARE)


def unshown_of(*, project: Project, annotator: Annotator) -> QuerySet[Assignment]:
    return leases_of(project=project, annotator=annotator).filter(shown_at__isnull=True)


def lease_ahead(*, project: Project, annotator: Annotator) -> list[Assignment]:
    """This person's unshown leases, renewed and filled up, in the order they will be shown.

    Of what is held beyond what is allowed by now nothing is renewed. Raises ProjectClosed.
    """
    check_open(project, annotator)
    expire_leases(project=project)
    with transaction.atomic():
        look = look_up(project=project, annotator=annotator)
        refuse_entry(project=project, annotator=annotator, part=look)
        mine = unshown_of(project=project, annotator=annotator)
        held = list(mine.select_related(*ON_SCREEN).order_by("leased_at", "pk"))
        # Where people may judge only so many, each is served when it is asked for.
        limited = {look.quota, project.quota, project.daily_limit} != {None}
        wanted = 0 if limited else allowed_ahead(project, held=len(held))
        if wanted and held:
            kept = [assignment.pk for assignment in held[:wanted]]
            Assignment.objects.filter(pk__in=kept).update(expires_at=from_now(UNSHOWN_S))
        while len(held) < wanted:
            taken = lease_first(project=project, annotator=annotator, look=look, ahead_s=UNSHOWN_S)
            if taken is None:
                break
            held.append(taken)
    return held


def show_assignment(*, assignment: Assignment, annotator: Annotator) -> Assignment:
    """Say that a comparison is on the screen now: its lease is the whole one from here.

    One that ran out meanwhile is leased again while a place is free. Raises LeaseLost.
    """
    project = assignment.comparison.project
    check_open(project, annotator)
    whole = {"shown_at": Now(), "expires_at": from_now(project.lease_s)}
    lease = Assignment.objects.filter(pk=assignment.pk, annotator=annotator, state=State.LEASED)
    if not lease.update(**whole):
        lease_again(assignment, annotator)
        lease.update(**whole)
    assignment.refresh_from_db(fields=["state", "shown_at", "expires_at"])
    return assignment


@transaction.atomic
def lease_again(assignment: Assignment, annotator: Annotator) -> None:
    """Take a place for a lease that has run out. Raises LeaseLost."""
    lock_person(annotator)
    locked = Assignment.objects.select_for_update(no_key=True).get(pk=assignment.pk)
    others = Assignment.objects.filter(
        comparison=locked.comparison_id,
        annotator=annotator,
        state__in=[*Assignment.HOLDING, State.SKIPPED],
        is_repeat=locked.is_repeat,
    ).exclude(pk=locked.pk)
    judged = Judgment.objects.standing().filter(
        comparison=locked.comparison_id, annotator=annotator, is_repeat=locked.is_repeat
    )
    if locked.annotator_id != annotator.pk or locked.state in (State.JUDGED, State.SKIPPED):
        raise LeaseLost("you have answered or skipped this comparison")
    if locked.state == State.LEASED:
        return
    if PromptTopic.objects.filter(
        prompt__comparison=locked.comparison_id, name__in=annotator.avoids
    ).exists():
        raise LeaseLost("this one is about a topic that you asked not to see")
    if others.exists() or judged.exists():
        raise LeaseLost("you have this comparison in another window")
    place = Comparison.objects.filter(pk=locked.comparison_id, slots__gt=0)
    if not locked.is_repeat and not place.update(slots=F("slots") - 1):
        raise LeaseLost("your time for this one had run out and others have answered it")
    Assignment.objects.filter(pk=locked.pk).update(
        state=State.LEASED, expires_at=from_now(UNSHOWN_S)
    )
