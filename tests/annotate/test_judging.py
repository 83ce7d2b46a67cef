"""Serving and recording: exact overlap, one row per send, undo, and nobody in the way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection, connections
from django.utils import timezone

from annotate.errors import AnnotateError, KeyReused, LeaseLost, NothingToUndo, ProjectClosed
from annotate.models import Annotator, Answer, Assignment, Comparison, Judgment, ResponseOrigin
from annotate.services.judging import submit_judgment, undo_judgment
from annotate.services.serving import next_assignment, skip_assignment
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People, make_people


def lease(people: People, comparison: Comparison) -> tuple[Annotator, Assignment]:
    bob = make_annotator(people.workspace, people.bob)
    assignment = next_assignment(project=comparison.project, annotator=bob)
    assert assignment is not None
    return bob, assignment


def overlap_holds(comparison: Comparison) -> bool:
    comparison.refresh_from_db()
    held = comparison.assignments.filter(state__in=Assignment.HOLDING).count()
    return held + comparison.slots == comparison.project.overlap


def test_a_lease_takes_a_place_and_a_judgment_keeps_it(people: People) -> None:
    comparison = make_comparison(make_project(people.workspace))
    bob, assignment = lease(people, comparison)
    assert overlap_holds(comparison)
    assert comparison.slots == 0
    submit_judgment(assignment=assignment, annotator=bob, answer="tie", idempotency_key="k")
    assert overlap_holds(comparison)
    assert next_assignment(project=comparison.project, annotator=bob) is None


def test_the_same_lease_comes_back_until_it_is_answered(people: People) -> None:
    project = make_project(people.workspace)
    comparison = make_comparison(project)
    make_comparison(project, prompt="Another?")
    bob, assignment = lease(people, comparison)
    assert next_assignment(project=project, annotator=bob) == assignment


def test_left_is_what_the_person_saw_on_the_left(people: People) -> None:
    comparison = make_comparison(make_project(people.workspace))
    bob, assignment = lease(people, comparison)
    Assignment.objects.filter(pk=assignment.pk).update(swapped=True)
    assignment.refresh_from_db()
    judgment = submit_judgment(
        assignment=assignment, annotator=bob, answer="left", idempotency_key="k"
    )
    assert judgment.answer == Answer.B
    assert judgment.swapped


def test_sides_are_drawn_for_each_assignment(people: People) -> None:
    project = make_project(people.workspace)
    bob = make_annotator(people.workspace, people.bob)
    for number in range(40):
        make_comparison(project, prompt=f"{number}?")
        assignment = next_assignment(project=project, annotator=bob)
        assert assignment is not None
        submit_judgment(
            assignment=assignment, annotator=bob, answer="left", idempotency_key=str(number)
        )
    swapped = Judgment.objects.filter(swapped=True).count()
    assert 5 < swapped < 35  # fails by chance once in a million runs


def test_sending_twice_stores_once_and_another_answer_is_refused(people: People) -> None:
    bob, assignment = lease(people, make_comparison(make_project(people.workspace)))
    send = {"assignment": assignment, "annotator": bob, "idempotency_key": "k"}
    first = submit_judgment(answer="left", **send)
    assert submit_judgment(answer="left", **send) == first
    with pytest.raises(KeyReused):
        submit_judgment(answer="right", **send)
    assert Judgment.objects.count() == 1


def test_undo_appends_and_gives_the_comparison_back(people: People) -> None:
    comparison = make_comparison(make_project(people.workspace))
    bob, assignment = lease(people, comparison)
    first = submit_judgment(
        assignment=assignment, annotator=bob, answer="left", idempotency_key="k1"
    )
    undo = {"project": comparison.project, "annotator": bob}
    again = undo_judgment(idempotency_key="u1", **undo)
    assert again == assignment
    assert undo_judgment(idempotency_key="u1", **undo) == assignment
    assert not Judgment.objects.current().exists()
    second = submit_judgment(assignment=again, annotator=bob, answer="right", idempotency_key="k2")
    assert list(Judgment.objects.current()) == [second]
    assert Judgment.objects.count() == 3
    assert Judgment.objects.filter(pk=first.pk, answer=first.answer).exists()
    assert overlap_holds(comparison)


def test_old_judgments_cannot_be_undone(people: People) -> None:
    comparison = make_comparison(make_project(people.workspace))
    bob, assignment = lease(people, comparison)
    submit_judgment(assignment=assignment, annotator=bob, answer="tie", idempotency_key="k")
    Judgment.objects.update(created_at=timezone.now() - timedelta(minutes=11))
    with pytest.raises(NothingToUndo):
        undo_judgment(project=comparison.project, annotator=bob, idempotency_key="u")


def run_out(assignment: Assignment) -> None:
    Assignment.objects.filter(pk=assignment.pk).update(
        expires_at=timezone.now() - timedelta(seconds=1)
    )


def test_an_overdue_lease_goes_to_the_next_person(people: People) -> None:
    comparison = make_comparison(make_project(people.workspace))
    bob, assignment = lease(people, comparison)
    run_out(assignment)
    rita = make_annotator(people.workspace, people.rita)
    theirs = next_assignment(project=comparison.project, annotator=rita)
    assert theirs is not None
    assert theirs.comparison == comparison
    with pytest.raises(LeaseLost, match="others have answered"):
        submit_judgment(assignment=assignment, annotator=bob, answer="tie", idempotency_key="k")
    assert overlap_holds(comparison)


def test_a_late_answer_counts_while_a_place_is_free(people: People) -> None:
    comparison = make_comparison(make_project(people.workspace))
    bob, assignment = lease(people, comparison)
    run_out(assignment)
    submit_judgment(assignment=assignment, annotator=bob, answer="tie", idempotency_key="k")
    assert overlap_holds(comparison)


def test_a_skipped_comparison_is_free_again_but_not_for_the_same_person(people: People) -> None:
    comparison = make_comparison(make_project(people.workspace))
    bob, assignment = lease(people, comparison)
    skip_assignment(assignment=assignment, annotator=bob)
    assert overlap_holds(comparison)
    assert next_assignment(project=comparison.project, annotator=bob) is None
    rita = make_annotator(people.workspace, people.rita)
    assert next_assignment(project=comparison.project, annotator=rita) is not None


def test_nobody_judges_what_they_wrote_or_judged(people: People) -> None:
    project = make_project(people.workspace, overlap=3)
    bob = make_annotator(people.workspace, people.bob)
    own = make_comparison(project, prompt="Own?")
    ResponseOrigin.objects.create(
        response=own.response_a, kind="person", reference="bob", author=people.bob
    )
    make_judgment(make_comparison(project, prompt="Judged?"), bob)
    assert next_assignment(project=project, annotator=bob) is None


def test_a_paused_project_serves_and_takes_nothing(people: People) -> None:
    project = make_project(people.workspace)
    bob, assignment = lease(people, make_comparison(project))
    project.state = "paused"
    project.save(update_fields=["state"])
    assignment.comparison.project.refresh_from_db()
    with pytest.raises(ProjectClosed):
        next_assignment(project=project, annotator=bob)
    with pytest.raises(ProjectClosed):
        submit_judgment(assignment=assignment, annotator=bob, answer="tie", idempotency_key="k")


def test_answers_the_project_does_not_offer_are_refused(people: People) -> None:
    project = make_project(people.workspace, allow_tie=False)
    bob, assignment = lease(people, make_comparison(project))
    for answer in ("tie", "a", ""):
        with pytest.raises(AnnotateError):
            submit_judgment(
                assignment=assignment, annotator=bob, answer=answer, idempotency_key="k"
            )


def in_parallel(count: int, work: Callable[[int], object]) -> list[object]:
    """Run `work` in that many threads at once; returns results or exceptions."""
    barrier = threading.Barrier(count)
    outcomes: list[object] = [None] * count

    def one(index: int) -> None:
        barrier.wait()
        try:
            outcomes[index] = work(index)
        except AnnotateError as error:
            outcomes[index] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


only_postgres = pytest.mark.skipif(
    "connection.vendor != 'postgresql'",
    reason="threads share an in-memory SQLite in tests; run with TEST_DATABASE_URL on PostgreSQL",
)


@only_postgres
@pytest.mark.django_db(transaction=True)
def test_twenty_people_and_three_places() -> None:
    assert connection.vendor == "postgresql"
    people = make_people()
    project = make_project(people.workspace, overlap=3)
    comparison = make_comparison(project)
    crowd = [make_annotator(people.workspace, name=f"person {n}") for n in range(20)]
    served = in_parallel(20, lambda n: next_assignment(project=project, annotator=crowd[n]))
    assert sum(isinstance(one, Assignment) for one in served) <= 3
    for annotator in crowd:
        next_assignment(project=project, annotator=annotator)
    assert comparison.assignments.count() == 3
    assert overlap_holds(comparison)


@only_postgres
@pytest.mark.django_db(transaction=True)
def test_thirty_identical_sends_store_one_row() -> None:
    people = make_people()
    bob, assignment = lease(people, make_comparison(make_project(people.workspace)))
    rows = in_parallel(
        30,
        lambda _: submit_judgment(
            assignment=assignment, annotator=bob, answer="left", idempotency_key="same"
        ),
    )
    assert Judgment.objects.count() == 1
    assert {getattr(row, "pk", row) for row in rows} == {Judgment.objects.get().pk}
