"""Leases ahead of the screen: how many, for how long, and that no place is lost or made by them."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from django.utils import timezone

from annotate.errors import AnnotateError, LeaseLost, ProjectClosed
from annotate.models import Annotator, Assignment, Comparison, Judgment, Participation, Project
from annotate.services.judging import submit_judgment, undo_judgment
from annotate.services.prefetching import (
    AHEAD_MOST,
    SHARE,
    UNSHOWN_S,
    lease_ahead,
    show_assignment,
)
from annotate.services.searching import waiting
from annotate.services.serving import expire_leases, next_assignment, skip_assignment
from tests.annotate.services.crowd import in_parallel
from tests.annotate.services.leases import overlap_holds, run_out
from tests.factories import make_annotator, make_comparison, make_project
from tests.people import People, make_people


def queue(people: People, comparisons: int, **fields: object) -> tuple[Project, Annotator]:
    project = make_project(people.workspace, **fields)
    for number in range(comparisons):
        make_comparison(project, prompt=f"{number}?")
    return project, make_annotator(people.workspace, people.bob)


def seconds_left(assignment: Assignment) -> float:
    assignment.refresh_from_db()
    return (assignment.expires_at - timezone.now()).total_seconds()


@pytest.mark.parametrize(
    ("comparisons", "ahead"), [(9, 0), (11, 1), (2 * SHARE + 1, 2), (200, AHEAD_MOST)]
)
def test_nobody_holds_more_than_a_tenth_of_what_is_open(
    comparisons: int, ahead: int, people: People
) -> None:
    project, bob = queue(people, comparisons)
    first = next_assignment(project=project, annotator=bob)
    held = lease_ahead(project=project, annotator=bob)
    assert len(held) == ahead
    assert first not in held
    assert lease_ahead(project=project, annotator=bob) == held
    assert all(overlap_holds(each) for each in Comparison.objects.all()[:20])


def test_an_unshown_lease_lives_a_minute_and_is_renewed_by_asking_again(people: People) -> None:
    project, bob = queue(people, 25)
    first = next_assignment(project=project, annotator=bob)
    held = lease_ahead(project=project, annotator=bob)
    assert first is not None
    assert seconds_left(first) > UNSHOWN_S + 60
    assert [each.shown_at for each in held] == [None, None]
    assert all(UNSHOWN_S - 10 < seconds_left(each) <= UNSHOWN_S for each in held)
    soon = timezone.now() + timedelta(seconds=5)
    Assignment.objects.filter(shown_at__isnull=True).update(expires_at=soon)
    assert lease_ahead(project=project, annotator=bob) == held
    assert all(seconds_left(each) > UNSHOWN_S - 10 for each in held)


def test_what_nobody_renews_goes_to_somebody_else(people: People) -> None:
    project, bob = queue(people, 21)
    held = lease_ahead(project=project, annotator=bob)
    Comparison.objects.exclude(pk__in=[each.comparison_id for each in held]).update(slots=0)
    rita = make_annotator(people.workspace, people.rita)
    assert next_assignment(project=project, annotator=rita) is None
    for each in held:
        run_out(each)
    theirs = next_assignment(project=project, annotator=rita)
    assert theirs is not None
    assert theirs.comparison_id in {each.comparison_id for each in held}
    # And near the end nothing is leased ahead, nor renewed.
    assert lease_ahead(project=project, annotator=bob) == []


def test_showing_renews_to_the_whole_lease(people: People) -> None:
    project, bob = queue(people, 25)
    (ahead, _) = lease_ahead(project=project, annotator=bob)
    shown = show_assignment(assignment=ahead, annotator=bob)
    assert shown.shown_at is not None
    assert seconds_left(shown) > project.lease_s - 10
    # The one on the screen comes first, whoever asks.
    assert next_assignment(project=project, annotator=bob) == shown


def test_the_next_assignment_is_one_that_was_held_ahead(people: People) -> None:
    project, bob = queue(people, 25)
    ahead = lease_ahead(project=project, annotator=bob)
    served = next_assignment(project=project, annotator=bob)
    assert served == ahead[0]
    assert served.shown_at is not None
    assert seconds_left(served) > project.lease_s - 10
    assert lease_ahead(project=project, annotator=bob)[0] == ahead[1]


def test_what_ran_out_is_leased_again_while_a_place_is_free(people: People) -> None:
    project, bob = queue(people, 25)
    first, second = lease_ahead(project=project, annotator=bob)
    for each in (first, second):
        run_out(each)
    expire_leases(project=project)
    assert show_assignment(assignment=first, annotator=bob).state == "leased"
    assert overlap_holds(first.comparison)
    Comparison.objects.filter(pk=second.comparison_id).update(slots=0)
    with pytest.raises(LeaseLost, match="others have answered"):
        show_assignment(assignment=second, annotator=bob)


def test_what_is_done_or_somebody_elses_cannot_be_shown(people: People) -> None:
    project, bob = queue(people, 35)
    first, second, third = lease_ahead(project=project, annotator=bob)
    submit_judgment(assignment=first, annotator=bob, answer="tie", idempotency_key="k")
    skip_assignment(assignment=second, annotator=bob, reason="other", note="no idea")
    rita = make_annotator(people.workspace, people.rita)
    for assignment, annotator in ((first, bob), (second, bob), (third, rita)):
        with pytest.raises(LeaseLost):
            show_assignment(assignment=assignment, annotator=annotator)
    second.refresh_from_db()
    assert (second.skip_reason, second.skip_note) == ("other", "no idea")


def test_an_unshown_lease_can_be_answered_and_is_kept_by_an_undo(people: People) -> None:
    project, bob = queue(people, 25)
    first, second = lease_ahead(project=project, annotator=bob)
    submit_judgment(assignment=first, annotator=bob, answer="tie", idempotency_key="k")
    back = undo_judgment(project=project, annotator=bob, idempotency_key="u", expected=first.pk)
    assert back == first
    second.refresh_from_db()
    assert (second.state, second.shown_at) == ("leased", None)
    assert all(overlap_holds(each.comparison) for each in (first, second))


def test_an_undo_of_what_is_not_the_last_takes_back_nothing(people: People) -> None:
    project, bob = queue(people, 25)
    first, second = lease_ahead(project=project, annotator=bob)
    for key, each in (("1", first), ("2", second)):
        submit_judgment(assignment=each, annotator=bob, answer="tie", idempotency_key=key)
    with pytest.raises(AnnotateError, match="not your last one"):
        undo_judgment(project=project, annotator=bob, idempotency_key="u", expected=first.pk)
    assert Judgment.objects.current().count() == 2


def test_a_paused_project_leases_nothing_ahead(people: People) -> None:
    project, bob = queue(people, 25)
    (held, _) = lease_ahead(project=project, annotator=bob)
    Project.objects.update(state="paused")
    project.refresh_from_db()
    held.comparison.project.refresh_from_db()
    with pytest.raises(ProjectClosed):
        lease_ahead(project=project, annotator=bob)
    with pytest.raises(ProjectClosed):
        show_assignment(assignment=held, annotator=bob)


@pytest.mark.parametrize(
    ("reason", "note"), [("bored", ""), ("", "words"), ("other", "x" * 501), ("other", "\0")]
)
def test_a_skip_takes_reasons_of_the_list_only(reason: str, note: str, people: People) -> None:
    project, bob = queue(people, 1)
    held = next_assignment(project=project, annotator=bob)
    assert held is not None
    with pytest.raises(AnnotateError):
        skip_assignment(assignment=held, annotator=bob, reason=reason, note=note)
    held.refresh_from_db()
    assert held.state == "leased"


@pytest.mark.parametrize("seed", range(4))
def test_no_place_is_lost_or_made_by_any_sequence_of_requests(seed: int, people: People) -> None:
    project, _ = queue(people, 24, overlap=2)
    crowd = [make_annotator(people.workspace, name=f"person {n}") for n in range(3)]
    held: list[list[Assignment]] = [[], [], []]
    dice = random.Random(seed)
    for number in range(120):
        who = dice.randrange(3)
        person, mine = crowd[who], held[who]
        step = dice.choice(["next", "ahead", "show", "submit", "late", "expire", "undo", "skip"])
        try:
            if step == "next":
                mine += filter(None, [next_assignment(project=project, annotator=person)])
            elif step == "ahead":
                mine += lease_ahead(project=project, annotator=person)
            elif step == "undo":
                undo_judgment(project=project, annotator=person, idempotency_key=f"{number}")
            elif mine:
                chosen = dice.choice(mine)
                if step in ("late", "expire"):
                    run_out(chosen)
                if step == "expire":
                    expire_leases(project=project)
                elif step == "show":
                    show_assignment(assignment=chosen, annotator=person)
                elif step == "skip":
                    skip_assignment(assignment=chosen, annotator=person)
                else:
                    submit_judgment(
                        assignment=chosen,
                        annotator=person,
                        answer="left",
                        idempotency_key=f"{number}",
                    )
        except AnnotateError:
            pass
        if number % 10 == 9:
            assert all(overlap_holds(each) for each in Comparison.objects.all())
    assert Judgment.objects.count() > 10


@pytest.mark.django_db(transaction=True)
def test_overlap_is_exact_while_eight_people_hold_screens_ahead() -> None:
    people = make_people()
    project, _ = queue(people, 40, overlap=3)
    crowd = [make_annotator(people.workspace, name=f"person {n}") for n in range(8)]

    def work(index: int) -> int:
        person, done = crowd[index], 0
        while first := next_assignment(project=project, annotator=person):
            for assignment in [first, *lease_ahead(project=project, annotator=person)]:
                try:
                    show_assignment(assignment=assignment, annotator=person)
                    submit_judgment(
                        assignment=assignment,
                        annotator=person,
                        answer="left",
                        idempotency_key=f"{index}-{done}",
                    )
                except LeaseLost:
                    continue
                done += 1
        return done

    outcomes = in_parallel(8, work)
    assert [one for one in outcomes if not isinstance(one, int)] == []
    # Who came last may have found the last places leased by others, which they then filled.
    assert Judgment.objects.count() == 120
    assert {each.judgments.count() for each in Comparison.objects.all()} == {3}
    assert not Assignment.objects.filter(state="leased").exists()


def test_what_is_leased_ahead_begins_at_the_remembered_place(people: People) -> None:
    project, bob = queue(people, 20)
    for key, comparison in enumerate(Comparison.objects.order_by("pk"), start=1):
        Comparison.objects.filter(pk=comparison.pk).update(priority=0, random_key=key)
    Participation.objects.create(
        workspace=people.workspace,
        project=project,
        annotator=bob,
        search_priority=0,
        search_key=20,
    )
    keys = [held.comparison.random_key for held in lease_ahead(project=project, annotator=bob)]
    # The only one behind the place, then from the start.
    assert keys == [20, 1]


def test_what_waits_is_counted_from_the_place_and_misses_nothing(people: People) -> None:
    project, bob = queue(people, 5)
    for key, comparison in enumerate(Comparison.objects.order_by("pk"), start=1):
        Comparison.objects.filter(pk=comparison.pk).update(priority=0, random_key=key)
    Participation.objects.create(
        workspace=people.workspace,
        project=project,
        annotator=bob,
        search_priority=0,
        search_key=4,
    )
    counts = [waiting(project=project, annotator=bob, limit=limit) for limit in (2, 3, 100)]
    assert counts == [2, 3, 5]
