from __future__ import annotations

from typing import Any

import pytest

from annotate.models import Answer, Assignment, Comparison, Judgment, Project
from tests.api.world import World, caller
from tests.factories import make_comparison, make_project
from tests.people import People


def two_open(people: People) -> Any:
    project = make_project(people.workspace)
    make_comparison(project, prompt="One?")
    make_comparison(project, prompt="Two?", b="<script>alert(1)</script>")
    return caller(people.bob, people.workspace)


def judge(bob: Any, served: dict[str, Any], answer: str = "left", key: str = "k") -> Any:
    return bob.post(
        f"/assignments/{served['id']}/judgment", {"answer": answer, "idempotency_key": key}
    )


def test_next_shows_the_pair_and_nothing_else(people: People) -> None:
    bob = two_open(people)
    served = bob.post("/projects/helpful/next").json()
    assert set(served) == {
        "id", "project", "expires_at", "prompt", "left", "right", "response",
        "candidates", "answers", "labels", "form", "guideline_version",
    }  # fmt: skip
    comparison = Assignment.objects.get(pk=served["id"]).comparison
    texts = {comparison.response_a.text, comparison.response_b.text}
    assert {served["left"], served["right"]} == texts
    assert served["prompt"] == comparison.prompt.messages
    assert served["answers"] == ["left", "right", "tie", "both_bad"]
    assert (served["response"], served["labels"]) == (None, [])
    assert (served["candidates"], served["form"]) == ([], {})
    assert bob.post("/projects/helpful/next").json() == served


@pytest.mark.parametrize("swapped", [True, False])
def test_left_is_what_was_served_on_the_left(swapped: bool, people: People) -> None:
    bob = two_open(people)
    bob.post("/projects/helpful/next")
    Assignment.objects.update(swapped=swapped)
    served = bob.post("/projects/helpful/next").json()
    reply = judge(bob, served)
    judgment = Judgment.objects.get()
    assert judgment.answer == (Answer.B if swapped else Answer.A)
    chosen = judgment.comparison.response_b if swapped else judgment.comparison.response_a
    assert chosen.text == served["left"]
    assert reply.json()["judgment"]["answer"] == "left"


def test_one_request_stores_and_serves_until_nothing_is_left(people: People) -> None:
    bob = two_open(people)
    served = bob.post("/projects/helpful/next").json()
    first = judge(bob, served, key="k1")
    assert first.status_code == 201
    upcoming = first.json()["next"]
    assert upcoming["id"] != served["id"]
    last = bob.post(
        f"/assignments/{upcoming['id']}/judgment",
        {"answer": "tie", "idempotency_key": "k2", "active_ms": 900, "rationale": "same"},
    )
    assert last.json()["next"] is None
    said = last.json()["judgment"]
    assert (said["answer"], said["active_ms"], said["rationale"]) == ("tie", 900, "same")
    assert bob.post("/projects/helpful/next").status_code == 204


def test_a_repeat_is_200_and_another_body_409(people: People) -> None:
    bob = two_open(people)
    served = bob.post("/projects/helpful/next").json()
    first = judge(bob, served)
    again = judge(bob, served)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    reused = judge(bob, served, answer="right")
    assert reused.status_code == 409
    assert reused.json()["type"] == "urn:annotate-and-align:key-reused"
    lost = judge(bob, served, key="another")
    assert lost.status_code == 409
    assert lost.json()["type"] == "urn:annotate-and-align:lease-lost"
    assert Judgment.objects.count() == 1


def test_answers_that_are_not_offered_are_refused(people: People) -> None:
    bob = two_open(people)
    Project.objects.update(allow_tie=False)
    served = bob.post("/projects/helpful/next").json()
    assert "tie" not in served["answers"]
    for answer in ("tie", "a", "", None):
        assert judge(bob, served, answer=answer).status_code == 422  # type: ignore[arg-type]
    long = {"answer": "left", "idempotency_key": "k" * 121, "active_ms": -1}
    reply = bob.post(f"/assignments/{served['id']}/judgment", long)
    assert {e["field"] for e in reply.json()["errors"]} == {"idempotency_key", "active_ms"}
    assert not Judgment.objects.exists()


def test_skip_puts_aside_and_serves_the_next(people: People) -> None:
    bob = two_open(people)
    served = bob.post("/projects/helpful/next").json()
    reply = bob.post(f"/assignments/{served['id']}/skip")
    assert reply.json()["next"]["id"] != served["id"]
    assert bob.post(f"/assignments/{served['id']}/skip").status_code == 409


def test_undo_gives_the_comparison_back(people: People) -> None:
    bob = two_open(people)
    served = bob.post("/projects/helpful/next").json()
    judge(bob, served)
    back = bob.post("/projects/helpful/undo", {"idempotency_key": "u"})
    assert back.status_code == 200
    assert back.json()["id"] == served["id"]
    assert back.json()["left"] == served["left"]
    nothing = bob.post("/projects/helpful/undo", {"idempotency_key": "u2"})
    assert nothing.status_code == 409
    assert nothing.json()["type"] == "urn:annotate-and-align:nothing-to-undo"


def test_a_paused_project_serves_and_takes_nothing(people: People) -> None:
    bob = two_open(people)
    served = bob.post("/projects/helpful/next").json()
    Project.objects.update(state="paused")
    for reply in (bob.post("/projects/helpful/next"), judge(bob, served)):
        assert reply.status_code == 409
        assert reply.json()["type"] == "urn:annotate-and-align:project-closed"


def test_anothers_assignment_is_not_found(people: People) -> None:
    bob = two_open(people)
    served = bob.post("/projects/helpful/next").json()
    for other in (people.rita, people.alice):
        stranger = caller(other, people.workspace)
        assert judge(stranger, served).status_code == 404
        assert stranger.post(f"/assignments/{served['id']}/skip").status_code == 404


def test_a_judgment_costs_few_queries(people: People, django_assert_max_num_queries: Any) -> None:
    bob = two_open(people)
    served = bob.post("/projects/helpful/next").json()
    # Eight statements, and the savepoints that stand for two transactions here.
    with django_assert_max_num_queries(8 + 4):
        reply = judge(bob, served)
    assert reply.status_code == 201
    assert reply.json()["next"]["guideline_version"] == 1


def test_the_origin_of_a_pair_is_nowhere(world: World) -> None:
    Comparison.objects.update(origin_reference="round:4711")
    served = world.bob.post("/projects/helpful/next")
    assert "4711" not in served.content.decode()
    assert "4711" not in judge(world.bob, served.json()).content.decode()
