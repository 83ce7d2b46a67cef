from __future__ import annotations

from datetime import timedelta

from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from annotate.models import Assignment, Comparison
from annotate.selectors.progress import queue_progress
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People


def test_the_queue_of_a_project(
    people: People, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    project = make_project(people.workspace, overlap=2)
    bob = make_annotator(people.workspace, people.bob)
    waiting, leased, stale, done = (make_comparison(project, f"{n}?") for n in range(4))
    Comparison.objects.exclude(pk=waiting.pk).update(slots=0)
    for comparison, minutes in ((leased, 5), (stale, -5)):
        Assignment.objects.create(
            workspace=people.workspace,
            comparison=comparison,
            annotator=bob,
            swapped=False,
            expires_at=timezone.now() + timedelta(minutes=minutes),
        )
    make_judgment(done, bob)
    with django_assert_num_queries(4):
        progress = queue_progress(project=project)
    assert (progress.comparisons, progress.judgments) == (4, 1)
    # A lease that has run out counts until somebody asks for more and it is taken back.
    assert (progress.open_slots, progress.live_leases, progress.complete) == (2, 2, 1)


def test_an_empty_queue(people: People) -> None:
    progress = queue_progress(project=make_project(people.workspace))
    assert (progress.comparisons, progress.open_slots, progress.complete) == (0, 0, 0)
