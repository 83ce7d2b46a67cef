"""Every answer kind as a plain form and over the API: the same replies, the same rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from annotate.models import Assignment, Judgment
from annotate.selectors.progress import queue_progress
from annotate.services.projects import create_project
from annotate.services.rankings import shown_candidates
from tests.annotate.services.test_questions import EVERYTHING, REPLIES
from tests.annotate.services.test_rankings import TEXTS, rankings
from tests.api.world import caller
from tests.factories import make_comparison
from tests.people import People

FILLED = {
    "strength": "-3",
    "aspect:helpful": "left",
    "aspect:correct": "tie",
    "rating:left:overall": "5",
    "rating:right:overall": "2",
    "reasons": ["tone"],
    "rationale": "It is right.",
    "rewrite": "A colour,\r\nand a fine one.",
    "spans": json.dumps(REPLIES["spans"]),
    "known_model": "true",
}


def page_of(people: People, client: Client, form: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(Bob's screen with "A colour." on the left, what its form must send)."""
    project = create_project(workspace=people.workspace, name="Asked", slug="asked", form=form)
    make_comparison(project)
    client.force_login(people.bob)
    client.get("/judge/asked/")
    Assignment.objects.update(swapped=False)
    page = client.get("/judge/asked/").content.decode()
    assignment = re.search(r'name="assignment" value="(\d+)"', page)
    assert assignment
    return page, {"assignment": assignment[1], "key": "k", "answer": "left"}


def test_a_plain_form_sends_every_kind(people: People, client: Client) -> None:
    page, body = page_of(people, client, EVERYTHING)
    for name in FILLED:
        assert f'name="{name}"' in page
    assert 'minlength="10"' in page
    client.post("/judge/asked/answer", {**body, **FILLED})
    judgment = Judgment.objects.get()
    assert (judgment.answer, judgment.strength, judgment.rationale) == ("a", -3, "It is right.")
    assert judgment.details == {
        "aspects": {"helpful": "a", "correct": "tie"},
        "ratings": {"a": {"overall": 5}, "b": {"overall": 2}},
        "reasons": ["tone"],
        "rewrite": {"of": "a", "text": "A colour,\nand a fine one."},
        "spans": [{"on": "b", "start": 2, "end": 6, "category": "error"}],
        "known_model": True,
    }


def test_a_plain_project_asks_for_nothing_more(people: People, client: Client) -> None:
    page, _ = page_of(people, client, {})
    assert "Why? (optional)" in page
    for absent in ("strength", "reasons", "rewrite", "spans", "known_model"):
        assert f'name="{absent}"' not in page


def test_what_is_refused_stays_filled_in(people: People, client: Client) -> None:
    _, body = page_of(people, client, EVERYTHING)
    sent = {**body, **FILLED, "rationale": "too <short", "strength": "3"}
    reply = client.post("/judge/asked/answer", sent)
    assert reply.status_code == 422
    page = reply.content.decode()
    assert "negative is left" in page
    assert "too &lt;short</textarea>" in page
    assert re.search(r'name="answer" value="left"[^>]* checked', page)
    assert re.search(r'name="aspect:correct" value="tie" checked', page)
    assert re.search(r'name="reasons" value="tone" checked', page)
    assert not Judgment.objects.exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("strength", "much", "strength is &#x27;much&#x27;, not a whole number"),
        ("rating:left:overall", "٣", "not a whole number"),
        ("spans", "[", "could not be read"),
        ("spans", "[" * 5000, "could not be read"),
        ("aspect:new", "left", "there is no"),
        ("rating:middle:overall", "1", "there is no"),
    ],
)
def test_a_form_that_was_tampered_with_is_refused(
    people: People, client: Client, name: str, value: str, message: str
) -> None:
    _, body = page_of(people, client, EVERYTHING)
    reply = client.post("/judge/asked/answer", {**body, **FILLED, name: value})
    assert reply.status_code == 422
    assert message in reply.content.decode()
    assert not Judgment.objects.exists()


def test_a_ranking_is_numbers_in_selects(people: People, client: Client, tmp_path: Path) -> None:
    rankings(people, tmp_path)
    client.force_login(people.bob)
    page = client.get("/judge/ranked/").content.decode()
    assignment = Assignment.objects.get()
    body: dict[str, Any] = {"assignment": assignment.pk, "key": "k", "answer": "ranking"}
    for shown in shown_candidates(assignment):
        assert f'name="rank:{shown.place}"' in page
        rank = {"best": "1", "good": "2", "poor": "2", "worst": ""}[shown.text]
        body[f"rank:{shown.place}"] = rank
    refused = client.post("/judge/ranked/answer", {**body, "rank:9": "1"})
    assert refused.status_code == 422
    assert "there is no response 9" in refused.content.decode()
    assert refused.content.decode().count("selected") >= 3
    client.post("/judge/ranked/answer", body)
    ranking = Judgment.objects.get(answer="ranking")
    stored = {row.position: row.response.text for row in ranking.comparison.candidates.all()}
    by_text = [sorted(stored[p] for p in tied) for tied in ranking.details["ranking"]]
    assert by_text == [["best"], ["good", "poor"]]


def test_the_api_tells_the_form_and_takes_the_replies(people: People) -> None:
    project = create_project(
        workspace=people.workspace, name="Asked", slug="asked", form=EVERYTHING
    )
    make_comparison(project)
    bob = caller(people.bob, people.workspace)
    served = bob.post("/projects/asked/next").json()
    assert served["form"]["strength"] == 8
    assert served["form"]["ratings"][0] == EVERYTHING["ratings"][0]
    body = {
        "answer": "left",
        "idempotency_key": "k",
        "strength": -3,
        "rationale": "It is right.",
        "details": REPLIES | {"rewrite": {"of": "left", "text": "Better.\n"}},
    }
    address = f"/assignments/{served['id']}/judgment"
    reply = bob.post(address, body)
    assert reply.status_code == 201, reply.json()
    assert reply.json()["judgment"]["strength"] == -3
    assert reply.json()["judgment"]["details"] == body["details"]
    assert bob.post(address, body).status_code == 200
    assert bob.post(address, {**body, "strength": -2}).status_code == 409


@pytest.mark.parametrize(
    "change",
    [
        {"strength": 9},
        {"details": {"mood": 1}},
        {"details": {"aspects": {"helpful": "a"}}},
        {"details": {"ratings": {"middle": {}}}},
        {"details": {"spans": [{"on": "left", "start": -1, "end": 2, "category": "error"}]}},
        {"details": {"ranking": [1]}},
    ],
)
def test_the_api_refuses_what_does_not_fit(people: People, change: dict[str, Any]) -> None:
    project = create_project(
        workspace=people.workspace, name="Asked", slug="asked", form=EVERYTHING
    )
    make_comparison(project)
    bob = caller(people.bob, people.workspace)
    served = bob.post("/projects/asked/next").json()
    body = {"answer": "left", "idempotency_key": "k", "strength": -3, "details": REPLIES}
    reply = bob.post(f"/assignments/{served['id']}/judgment", {**body, **change})
    assert reply.status_code == 422
    assert not Judgment.objects.exists()


def test_the_api_serves_and_takes_a_ranking(people: People, tmp_path: Path) -> None:
    rankings(people, tmp_path)
    bob = caller(people.bob, people.workspace)
    served = bob.post("/projects/ranked/next").json()
    assert served["answers"] == ["ranking"]
    assert served["left"] is served["right"] is served["response"] is None
    assert {row["text"] for row in served["candidates"]} == set(TEXTS)
    ids = {row["text"]: row["id"] for row in served["candidates"]}
    order = [[ids["best"]], [ids["good"], ids["poor"]]]
    body = {"answer": "ranking", "idempotency_key": "k", "details": {"ranking": order}}
    reply = bob.post(f"/assignments/{served['id']}/judgment", body)
    assert reply.status_code == 201, reply.json()
    said = reply.json()["judgment"]["details"]["ranking"]
    assert [sorted(tied) for tied in said] == [sorted(tied) for tied in order]
    assert Judgment.objects.count() == 4


def test_a_form_is_set_over_the_api_and_is_a_version(people: People) -> None:
    rita = caller(people.rita, people.workspace)
    body = {"slug": "asked", "name": "Asked", "form": {"strength": 4, "reasons": ["tone"]}}
    made = rita.post("/projects", body)
    assert made.status_code == 201, made.json()
    assert made.json()["form"] == {"strength": 4, "reasons": ["tone"]}
    changed = rita.send("PATCH", "/projects/asked", {"form": {"known_model": True}})
    assert (changed.json()["guideline_version"], changed.json()["form"]) == (
        2,
        {"known_model": True},
    )
    for form in ({"mood": 1}, {"strength": 5}, {"reasons": ["a", "a"]}):
        assert rita.send("PATCH", "/projects/asked", {"form": form}).status_code == 422


def test_a_researcher_reads_what_was_said(people: People, client: Client, tmp_path: Path) -> None:
    _, body = page_of(people, client, EVERYTHING)
    client.post("/judge/asked/answer", {**body, **FILLED})
    ranked = rankings(people, tmp_path)
    client.get("/judge/ranked/")
    assignment = Assignment.objects.latest("pk")
    places = {f"rank:{shown.place}": str(shown.place) for shown in shown_candidates(assignment)}
    sent = {"assignment": assignment.pk, "key": "r", "answer": "ranking", **places}
    client.post("/judge/ranked/answer", sent)
    client.force_login(people.rita)
    asked = Judgment.objects.earliest("pk").comparison_id
    page = client.get(f"/projects/asked/comparisons/{asked}/").content.decode()
    for line in (
        "strength 3",
        "helpful: A",
        "overall of B: 2",
        "error in B, 2–6",
        "knew the model",
    ):
        assert line in page
    listed = client.get("/projects/ranked/comparisons/").content.decode()
    assert "1 ranking<" in listed
    assert "Ranked" in listed
    page = client.get(f"/projects/ranked/comparisons/{assignment.comparison_id}/").content.decode()
    order = " &gt; ".join("ABCD"[position] for position in assignment.order)
    assert order in page
    assert page.count("Pair ") == 6
    pair = ranked.comparisons.exclude(group=None).latest("pk")
    page = client.get(f"/projects/ranked/comparisons/{pair.pk}/").content.decode()
    assert f"ranking {assignment.comparison_id}</a>" in page
    progress = queue_progress(project=ranked)
    assert (progress.comparisons, progress.complete, progress.judgments) == (1, 1, 1)
    assert client.get("/projects/ranked/").status_code == 200
