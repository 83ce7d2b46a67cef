"""The settings page: questions one a line, drawn as annotators see them, saved as a version."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from annotate.question_forms import QuestionsForm, as_fields
from annotate.services.questions import checked_form
from tests.annotate.services.test_questions import ANSWERS, EVERYTHING
from tests.factories import make_project
from tests.people import People

FETCH = {"X-Requested-With": "fetch"}
SETTINGS = {"name": "Helpful", "state": "open", "overlap": "1", "lease_s": "900"}
ASKED = {
    "ask-strength": "4",
    "ask-aspects": "helpful: it does what was asked\r\ncorrect",
    "ask-ratings": "overall [1-5]: 1 bad, 5 good",
    "ask-reasons": "factual\r\n\r\ntone",
    "ask-rationale": "required",
    "ask-rationale_min": "20",
    "ask-rewrite": "optional",
    "ask-spans": "error",
    "ask-known_model": "on",
    "ask-conditions": "rewrite: left, right",
}
FORM = {
    "strength": 4,
    "aspects": [
        {"name": "helpful", "definition": "it does what was asked"},
        {"name": "correct", "definition": ""},
    ],
    "ratings": [{"name": "overall", "definition": "1 bad, 5 good", "low": 1, "high": 5}],
    "reasons": ["factual", "tone"],
    "rationale": "required",
    "rationale_min": 20,
    "rewrite": "optional",
    "spans": ["error"],
    "known_model": True,
    "conditions": [{"show": "rewrite", "when": {"answer": ["left", "right"]}}],
}


def test_a_stored_form_is_filled_in_and_read_back_as_it_was() -> None:
    stored = checked_form(kind="comparisons", form=EVERYTHING, answers=ANSWERS)
    fields = {f"ask-{name}": value for name, value in as_fields(stored).items()}
    again = QuestionsForm(fields)
    assert again.is_valid(), again.errors
    assert checked_form(kind="comparisons", form=again.as_form(), answers=ANSWERS) == stored


def test_saving_makes_a_version_once(people: People, client: Client) -> None:
    project = make_project(people.workspace)
    client.force_login(people.rita)
    body = {**SETTINGS, **ASKED, "guidelines": "Prefer the more helpful answer."}
    for _ in range(2):
        reply = client.post("/projects/helpful/settings", body)
        assert reply.status_code == 302
    newest = project.guidelines.latest("version")
    assert (newest.version, newest.form) == (2, FORM)
    page = client.get("/projects/helpful/settings").content.decode()
    assert "overall [1-5]: 1 bad, 5 good" in page
    assert 'name="strength" value="-2"' in page


def test_the_preview_is_what_annotators_get_and_saves_nothing(
    people: People, client: Client
) -> None:
    project = make_project(people.workspace)
    client.force_login(people.rita)
    body = {**SETTINGS, **ASKED, "preview": "1"}
    fragment = client.post("/projects/helpful/settings", body, headers=FETCH).content.decode()
    whole = client.post("/projects/helpful/settings", body).content.decode()
    for page in (fragment, whole):
        for name in ("strength", "aspect:helpful", "rating:left:overall", "reasons", "spans"):
            assert f'name="{name}"' in page
        assert "red wine" in page
    assert "<html" not in fragment
    assert project.guidelines.count() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ask-ratings": "overall"}, "line 1: write “name [1-5]”"),
        ({"ask-ratings": "overall [5-1]"}, "low below high"),
        ({"ask-aspects": "a [b]"}, "line 1: write “name”"),
        ({"ask-conditions": "rewrite"}, "line 1: write “question: answers”"),
        ({"ask-conditions": "rewrite: up"}, "is no answer here"),
        ({"ask-reasons": "a\nA"}, "twice"),
        ({"ask-strength": "5"}, "Select a valid choice"),
    ],
)
def test_what_cannot_be_asked_is_told(
    people: People, client: Client, change: dict[str, Any], message: str
) -> None:
    project = make_project(people.workspace)
    client.force_login(people.rita)
    body = {**SETTINGS, **ASKED, **change}
    preview = client.post(
        "/projects/helpful/settings", {**body, "preview": "1"}, headers=FETCH
    ).content.decode()
    assert message in preview
    assert "Cannot be asked like this" in preview
    saved = client.post("/projects/helpful/settings", body)
    assert saved.status_code == 422
    assert message in saved.content.decode()
    assert project.guidelines.count() == 1


@pytest.mark.parametrize("kind", ["labels", "rankings"])
def test_other_kinds_show_what_they_can_ask(people: People, client: Client, kind: str) -> None:
    make_project(people.workspace, kind=kind)
    client.force_login(people.rita)
    page = client.get("/projects/helpful/settings").content.decode()
    assert "ask-reasons" in page
    assert "ask-strength" not in page
    assert ('name="rank:4"' in page) == (kind == "rankings")
