"""What tests of serving and judging share: a lease, letting it run out, the invariant."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from annotate.models import Annotator, Assignment, Comparison, Judgment
from annotate.services.serving import next_assignment
from tests.factories import make_annotator
from tests.people import People


def lease(people: People, comparison: Comparison) -> tuple[Annotator, Assignment]:
    bob = make_annotator(people.workspace, people.bob)
    assignment = next_assignment(project=comparison.project, annotator=bob)
    assert assignment is not None
    return bob, assignment


def run_out(assignment: Assignment) -> None:
    Assignment.objects.filter(pk=assignment.pk).update(
        expires_at=timezone.now() - timedelta(seconds=1)
    )


def overlap_holds(comparison: Comparison) -> bool:
    """judged + leased + slots = overlap, where judged counts the judgments that stand."""
    comparison.refresh_from_db()
    judged = Judgment.objects.current().filter(comparison=comparison).count()
    holding = comparison.assignments.filter(is_repeat=False)
    states = list(holding.values_list("state", flat=True))
    assert states.count(Assignment.State.JUDGED) == judged
    leased = states.count(Assignment.State.LEASED)
    return judged + leased + comparison.slots == comparison.project.overlap
