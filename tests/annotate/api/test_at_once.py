"""A hundred times the same request, many at a time, over the API and over the page's own address.

Fifty threads send twice each: PostgreSQL takes a hundred connections in all.
"""

from __future__ import annotations

from collections import Counter

import pytest
from django.test import Client

from annotate.models import Answer, Assignment, Judgment
from annotate.services.serving import annotator_for, next_assignment
from tests.annotate.services.crowd import in_parallel
from tests.annotate.services.leases import overlap_holds
from tests.api.world import caller
from tests.factories import make_comparison, make_project
from tests.people import People, make_people

pytestmark = pytest.mark.django_db(transaction=True)
THREADS = 50


def held_by_bob(people: People) -> Assignment:
    """What Bob has on his screen, with one more to come."""
    project = make_project(people.workspace)
    for number in range(2):
        make_comparison(project, prompt=f"{number}?")
    bob = annotator_for(user=people.bob, workspace=people.workspace)
    held = next_assignment(project=project, annotator=bob)
    assert held is not None
    return held


def test_a_hundred_identical_judgments_over_the_api_are_one_row_and_one_answer() -> None:
    people = make_people()
    held, bob = held_by_bob(people), caller(people.bob, people.workspace)
    body = {"answer": "left", "idempotency_key": "same", "rationale": "shorter"}

    def send(_: int) -> list[tuple[int, object]]:
        replies = [bob.post(f"/assignments/{held.pk}/judgment", body) for _ in range(2)]
        return [(reply.status_code, reply.json()) for reply in replies]

    outcomes = in_parallel(THREADS, send)
    assert [one for one in outcomes if isinstance(one, Exception)] == []
    replies = [reply for two in outcomes for reply in two]  # type: ignore[attr-defined]
    assert Counter(status for status, _ in replies) == {201: 1, 200: 99}
    assert all(said == replies[0][1] for _, said in replies)
    assert Judgment.objects.get().pk == replies[0][1]["judgment"]["id"]
    assert overlap_holds(held.comparison)
    # What comes next is the same for all, and leased once.
    assert Assignment.objects.count() == 2


def test_a_hundred_identical_forms_are_one_row_and_one_answer() -> None:
    people = make_people()
    held = held_by_bob(people)
    browser = Client()
    browser.force_login(people.bob)
    body = {"assignment": held.pk, "key": "same", "answer": "tie", "shown": held.pk}

    def send(_: int) -> list[tuple[int, object]]:
        window = Client(headers={"X-Requested-With": "fetch"})
        window.cookies.load(browser.cookies)
        replies = [window.post("/judge/helpful/answer", body) for _ in range(2)]
        return [(reply.status_code, reply.json()) for reply in replies]

    outcomes = in_parallel(THREADS, send)
    assert [one for one in outcomes if isinstance(one, Exception)] == []
    replies = [reply for two in outcomes for reply in two]  # type: ignore[attr-defined]
    assert Counter(status for status, _ in replies) == {200: 100}
    assert [said["problem"] for _, said in replies] == [""] * 100
    assert Judgment.objects.get().answer == Answer.TIE
    assert overlap_holds(held.comparison)


def test_one_key_with_two_bodies_at_once_stores_one_and_refuses_the_other() -> None:
    people = make_people()
    held, bob = held_by_bob(people), caller(people.bob, people.workspace)

    def send(index: int) -> tuple[str, int]:
        said = ("left", "right")[index % 2]
        body = {"answer": said, "idempotency_key": "same"}
        return said, bob.post(f"/assignments/{held.pk}/judgment", body).status_code

    outcomes = in_parallel(20, send)
    statuses = Counter(outcomes)
    (stored,) = {said for said, status in statuses if status in (200, 201)}  # type: ignore[misc]
    other = "right" if stored == "left" else "left"
    assert statuses == {(stored, 201): 1, (stored, 200): 9, (other, 409): 10}
    assert Judgment.objects.count() == 1
    assert overlap_holds(held.comparison)
