"""Recording what people said: one row per send, undo, late answers, and hostile input."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from annotate.errors import AnnotateError, KeyReused, LeaseLost, NothingToUndo
from annotate.models import Answer, Assignment, Judgment
from annotate.services.judging import submit_judgment, undo_judgment
from annotate.services.serving import expire_leases, next_assignment, skip_assignment
from tests.annotate.services.crowd import in_parallel
from tests.annotate.services.leases import lease, overlap_holds, run_out
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People, make_people


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
    eleven_minutes_ago = timezone.now() - timedelta(minutes=11)
    make_judgment(comparison, bob, assignment=assignment, created_at=eleven_minutes_ago)
    Assignment.objects.filter(pk=assignment.pk).update(state=Assignment.State.JUDGED)
    with pytest.raises(NothingToUndo):
        undo_judgment(project=comparison.project, annotator=bob, idempotency_key="u")


def test_a_late_answer_counts_while_a_place_is_free(people: People) -> None:
    comparison = make_comparison(make_project(people.workspace))
    bob, assignment = lease(people, comparison)
    run_out(assignment)
    submit_judgment(assignment=assignment, annotator=bob, answer="tie", idempotency_key="k")
    assert overlap_holds(comparison)


def test_answers_the_project_does_not_offer_are_refused(people: People) -> None:
    project = make_project(people.workspace, allow_tie=False)
    bob, assignment = lease(people, make_comparison(project))
    for answer in ("tie", "a", ""):
        with pytest.raises(AnnotateError):
            submit_judgment(
                assignment=assignment, annotator=bob, answer=answer, idempotency_key="k"
            )


def test_a_repeat_after_the_project_was_paused_gives_the_stored_row(people: People) -> None:
    bob, assignment = lease(people, make_comparison(make_project(people.workspace)))
    send = {"assignment": assignment, "annotator": bob, "idempotency_key": "k", "answer": "left"}
    first = submit_judgment(**send)
    assignment.comparison.project.state = "paused"
    assert submit_judgment(**send) == first


def test_an_answer_to_a_lease_that_was_renewed_takes_its_place(people: People) -> None:
    # The first window's lease ran out and the same comparison came again in a second window.
    comparison = make_comparison(make_project(people.workspace))
    bob, old = lease(people, comparison)
    run_out(old)
    new = next_assignment(project=comparison.project, annotator=bob)
    assert new is not None
    assert new != old
    judgment = submit_judgment(assignment=old, annotator=bob, answer="left", idempotency_key="k")
    assert judgment.assignment == old
    assert overlap_holds(comparison)
    with pytest.raises(LeaseLost, match="another window"):
        submit_judgment(assignment=new, annotator=bob, answer="right", idempotency_key="k2")
    assert overlap_holds(comparison)


def test_an_answer_to_what_was_skipped_in_another_window_is_refused(people: People) -> None:
    comparison = make_comparison(make_project(people.workspace, overlap=2))
    bob, old = lease(people, comparison)
    run_out(old)
    new = next_assignment(project=comparison.project, annotator=bob)
    assert new is not None
    skip_assignment(assignment=new, annotator=bob)
    with pytest.raises(LeaseLost, match="answered or skipped this comparison in another window"):
        submit_judgment(assignment=old, annotator=bob, answer="left", idempotency_key="k")
    assert overlap_holds(comparison)


def test_somebody_elses_lease_cannot_be_answered(people: People) -> None:
    comparison = make_comparison(make_project(people.workspace, overlap=2))
    _, assignment = lease(people, comparison)
    rita = make_annotator(people.workspace, people.rita)
    with pytest.raises(LeaseLost, match="no longer yours"):
        submit_judgment(assignment=assignment, annotator=rita, answer="tie", idempotency_key="k")
    assert not Judgment.objects.exists()


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("idempotency_key", "", "1 to 120 characters"),
        ("idempotency_key", "k" * 121, "1 to 120 characters"),
        ("idempotency_key", "k\0", "idempotency key holds a NUL"),
        ("rationale", "because\0", "the reason holds a NUL"),
        ("rationale", "\ud83d", "surrogate"),
        ("rationale", "r" * 10_001, "longer than 10000"),
        ("active_ms", -1, "active_ms"),
        ("active_ms", 2**31, "active_ms"),
    ],
)
def test_what_a_database_cannot_hold_is_refused(
    people: People, field: str, value: object, reason: str
) -> None:
    bob, assignment = lease(people, make_comparison(make_project(people.workspace)))
    send = {"assignment": assignment, "annotator": bob, "answer": "left", "idempotency_key": "k"}
    with pytest.raises(AnnotateError, match=reason):
        submit_judgment(**{**send, field: value})
    assert not Judgment.objects.exists()


def test_the_key_of_an_undo_is_checked_and_belongs_to_it(people: People) -> None:
    comparison = make_comparison(make_project(people.workspace))
    bob, assignment = lease(people, comparison)
    submit_judgment(assignment=assignment, annotator=bob, answer="left", idempotency_key="k")
    for key in ("", "u" * 121, "u\0"):
        with pytest.raises(AnnotateError, match="idempotency key"):
            undo_judgment(project=comparison.project, annotator=bob, idempotency_key=key)
    with pytest.raises(KeyReused):
        undo_judgment(project=comparison.project, annotator=bob, idempotency_key="k")
    assert Judgment.objects.current().count() == 1


def test_what_a_person_holds_goes_back_when_they_undo(people: People) -> None:
    project = make_project(people.workspace)
    first = make_comparison(project)
    bob, assignment = lease(people, first)
    submit_judgment(assignment=assignment, annotator=bob, answer="left", idempotency_key="k")
    second = make_comparison(project, prompt="Another?")
    _, held = lease(people, second)
    undo_judgment(project=project, annotator=bob, idempotency_key="u")
    held.refresh_from_db()
    assert held.state == Assignment.State.EXPIRED
    assert overlap_holds(first)
    assert overlap_holds(second)


def test_imported_judgments_and_those_of_others_cannot_be_undone(people: People) -> None:
    comparison = make_comparison(make_project(people.workspace, overlap=2))
    bob, assignment = lease(people, comparison)
    submit_judgment(assignment=assignment, annotator=bob, answer="left", idempotency_key="k")
    rita = make_annotator(people.workspace, people.rita)
    with pytest.raises(NothingToUndo):
        undo_judgment(project=comparison.project, annotator=rita, idempotency_key="u")
    other = make_project(people.workspace, slug="other")
    with pytest.raises(NothingToUndo):
        undo_judgment(project=other, annotator=bob, idempotency_key="u")


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


@pytest.mark.django_db(transaction=True)
def test_ten_undos_at_once_take_back_one_judgment_each_or_say_that_nothing_is_left() -> None:
    people = make_people()
    project = make_project(people.workspace)
    comparisons = [make_comparison(project, prompt=f"{n}?") for n in range(3)]
    bob = make_annotator(people.workspace, people.bob)
    for comparison in comparisons:
        _, assignment = lease(people, comparison)
        submit_judgment(
            assignment=assignment, annotator=bob, answer="left", idempotency_key=f"{comparison.pk}"
        )
    outcomes = in_parallel(
        10,
        lambda n: undo_judgment(project=project, annotator=bob, idempotency_key=f"undo {n}"),
    )
    assert sum(isinstance(one, Assignment) for one in outcomes) == 3
    assert sum(isinstance(one, NothingToUndo) for one in outcomes) == 7
    assert not Judgment.objects.current().exists()
    assert all(overlap_holds(comparison) for comparison in comparisons)


@pytest.mark.django_db(transaction=True)
def test_the_same_undo_sent_ten_times_takes_back_one_judgment() -> None:
    people = make_people()
    comparison = make_comparison(make_project(people.workspace))
    bob, assignment = lease(people, comparison)
    submit_judgment(assignment=assignment, annotator=bob, answer="left", idempotency_key="k")
    outcomes = in_parallel(
        10,
        lambda _: undo_judgment(
            project=comparison.project, annotator=bob, idempotency_key="the same"
        ),
    )
    assert outcomes == [assignment] * 10
    assert Judgment.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_late_answers_and_whoever_takes_their_leases_back_never_wait_for_each_other() -> None:
    people = make_people()
    project = make_project(people.workspace, overlap=8)
    comparison = make_comparison(project)
    crowd = [make_annotator(people.workspace, name=f"person {n}") for n in range(8)]
    leases = [next_assignment(project=project, annotator=one) for one in crowd]
    for assignment in leases:
        assert assignment is not None
        run_out(assignment)

    def work(index: int) -> object:
        if index % 2:
            return expire_leases(project=project)
        late = leases[index]
        assert late is not None
        return submit_judgment(
            assignment=late, annotator=crowd[index], answer="left", idempotency_key="k"
        )

    outcomes = in_parallel(8, work)
    assert [one for one in outcomes if isinstance(one, Exception)] == []
    assert Judgment.objects.count() == 4
    assert overlap_holds(comparison)


@pytest.mark.django_db(transaction=True)
def test_a_late_answer_while_the_lease_after_it_is_answered_in_another_window() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("one writer at a time on SQLite")
    people = make_people()
    comparison = make_comparison(make_project(people.workspace, overlap=2))
    bob, first = lease(people, comparison)
    run_out(first)
    expire_leases(project=comparison.project)
    _, second = lease(people, comparison)

    answered = threading.Event()

    def other_window_waits() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return cursor.fetchone() is not None

    def work(index: int) -> object:
        if index:
            answered.wait(20)
            return submit_judgment(
                assignment=first, annotator=bob, answer="left", idempotency_key="first"
            )
        with transaction.atomic():
            stored = submit_judgment(
                assignment=second, annotator=bob, answer="left", idempotency_key="second"
            )
            answered.set()
            deadline = time.monotonic() + 20
            while not other_window_waits() and time.monotonic() < deadline:
                time.sleep(0.01)
        return stored

    stored, late = in_parallel(2, work)
    assert isinstance(stored, Judgment)
    assert isinstance(late, LeaseLost)
    assert Judgment.objects.count() == 1
    assert overlap_holds(comparison)
