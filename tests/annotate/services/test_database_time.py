"""A lease ends by the database's clock: a web process whose own clock is wrong changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import F
from django.db.models.functions import Now

from annotate.models import Assignment
from annotate.services.judging import submit_judgment
from annotate.services.prefetching import lease_ahead
from annotate.services.serving import expire_leases, from_now, next_assignment
from tests.annotate.services.leases import lease, overlap_holds
from tests.factories import make_annotator, make_comparison, make_project
from tests.people import People

TWO_DAYS = timedelta(days=2)


@pytest.fixture(params=[TWO_DAYS, -TWO_DAYS], ids=["fast", "slow"])
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and from then on the process believes in a moment two days off, and stands still."""

    def stop() -> None:
        wrong = datetime.now(UTC) + request.param
        monkeypatch.setattr("django.utils.timezone.now", lambda: wrong)

    return stop


def test_a_lease_that_runs_is_kept_by_a_process_whose_clock_is_wrong(
    people: People, clock: Callable[[], None]
) -> None:
    comparison = make_comparison(make_project(people.workspace))
    bob, assignment = lease(people, comparison)
    rita = make_annotator(people.workspace, people.rita)
    clock()
    assert expire_leases(project=comparison.project) == 0
    assert next_assignment(project=comparison.project, annotator=rita) is None
    assert next_assignment(project=comparison.project, annotator=bob) == assignment
    submit_judgment(assignment=assignment, annotator=bob, answer="left", idempotency_key="k")
    assert overlap_holds(comparison)


def test_a_lease_that_ran_out_goes_on_whatever_the_process_thinks_of_the_time(
    people: People, clock: Callable[[], None]
) -> None:
    comparison = make_comparison(make_project(people.workspace))
    _, assignment = lease(people, comparison)
    Assignment.objects.update(expires_at=Now() - timedelta(seconds=1))
    rita = make_annotator(people.workspace, people.rita)
    clock()
    theirs = next_assignment(project=comparison.project, annotator=rita)
    assert theirs is not None
    assert theirs.comparison == comparison
    assignment.refresh_from_db()
    assert assignment.state == Assignment.State.EXPIRED
    assert overlap_holds(comparison)


def test_leases_taken_under_a_wrong_clock_are_as_long_as_any(
    people: People, clock: Callable[[], None]
) -> None:
    project = make_project(people.workspace)
    for number in range(25):
        make_comparison(project, prompt=f"{number}?")
    bob = make_annotator(people.workspace, people.bob)
    clock()
    shown = next_assignment(project=project, annotator=bob)
    ahead = lease_ahead(project=project, annotator=bob)
    assert shown is not None
    assert ahead
    for leased, length_s in [(shown, project.lease_s), *((each, 60) for each in ahead)]:
        running = Assignment.objects.filter(pk=leased.pk, expires_at__lte=from_now(length_s))
        assert running.filter(expires_at__gt=from_now(length_s - 50)).exists()
    Assignment.objects.update(expires_at=F("expires_at") - timedelta(seconds=61))
    assert expire_leases(project=project) == len(ahead)  # a minute later, and no process knows
