"""What is asked beside the answer: forms that hold, and replies that fit."""

from __future__ import annotations

from typing import Any

import pytest

from annotate.errors import AnnotateError, KeyReused
from annotate.models import Answer, Assignment, Guideline, Judgment
from annotate.services.judging import submit_judgment
from annotate.services.projects import create_project, update_project
from annotate.services.questions import checked_form, screen_details, screen_strength
from annotate.services.serving import next_assignment
from tests.annotate.services.leases import lease
from tests.factories import make_annotator, make_comparison, make_project
from tests.people import People

ANSWERS = ("left", "right", "tie", "both_bad")
EVERYTHING: dict[str, Any] = {
    "strength": 8,
    "aspects": [{"name": "helpful", "definition": "it does what was asked"}, {"name": "correct"}],
    "ratings": [{"name": "overall", "definition": "1 bad, 5 good", "low": 1, "high": 5}],
    "reasons": ["factual", "tone"],
    "rationale": "required",
    "rationale_min": 10,
    "rewrite": "optional",
    "spans": ["error", "unsafe"],
    "known_model": True,
    "conditions": [{"show": "strength", "when": {"answer": ["left", "right"]}}],
}
REPLIES: dict[str, Any] = {
    "aspects": {"helpful": "left", "correct": "tie"},
    "ratings": {"left": {"overall": 5}, "right": {"overall": 2}},
    "reasons": ["tone"],
    "rewrite": {"text": "A colour, and a fine one."},
    "spans": [{"on": "right", "start": 2, "end": 6, "category": "error"}],
    "known_model": True,
}


def held(people: People, form: dict[str, Any], *, swapped: bool = False) -> dict[str, Any]:
    """Bob's lease of "A colour." (A, left unless swapped) against "A fruit.", under this form."""
    project = create_project(workspace=people.workspace, name="Asked", slug="asked", form=form)
    make_comparison(project)
    bob = make_annotator(people.workspace, people.bob)
    assignment = next_assignment(project=project, annotator=bob)
    assert assignment is not None
    Assignment.objects.filter(pk=assignment.pk).update(swapped=swapped)
    again = next_assignment(project=project, annotator=bob)
    return {"assignment": again, "annotator": bob, "idempotency_key": "k"}


@pytest.mark.parametrize("swapped", [False, True])
def test_replies_are_stored_by_a_and_b_and_read_back_as_sent(people: People, swapped: bool) -> None:
    asked = held(people, EVERYTHING, swapped=swapped)
    sent = REPLIES | {"rewrite": {"of": "left", "text": "A colour, and a fine one."}}
    judgment = submit_judgment(
        answer="left", strength=-3, rationale="It is right.", details=sent, **asked
    )
    judgment.refresh_from_db()
    better, other = ("b", "a") if swapped else ("a", "b")
    assert judgment.answer == better
    assert judgment.strength == (3 if swapped else -3)
    assert judgment.details == {
        "aspects": {"helpful": better, "correct": "tie"},
        "ratings": {better: {"overall": 5}, other: {"overall": 2}},
        "reasons": ["tone"],
        "rewrite": {"of": better, "text": "A colour, and a fine one."},
        "spans": [{"on": other, "start": 2, "end": 6, "category": "error"}],
        "known_model": True,
    }
    assert screen_strength(judgment) == -3
    assert screen_details(judgment) == sent


def test_the_key_covers_every_reply(people: People) -> None:
    asked = held(people, {"strength": 4})
    first = submit_judgment(answer="left", strength=-1, **asked)
    assert submit_judgment(answer="left", strength=-1, **asked) == first
    with pytest.raises(KeyReused):
        submit_judgment(answer="left", strength=-2, **asked)
    assert Judgment.objects.count() == 1


def test_without_a_form_nothing_but_the_answer_and_a_reason_is_taken(people: People) -> None:
    asked = held(people, {})
    for extra in ({"strength": 1}, {"details": {"reasons": ["tone"]}}, {"details": {"mood": 1}}):
        with pytest.raises(AnnotateError, match=r"does not ask it|details has no"):
            submit_judgment(answer="left", **extra, **asked)
    judgment = submit_judgment(answer="left", rationale="why", details={"reasons": []}, **asked)
    assert (judgment.strength, judgment.details) == (None, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "left", "strength": None}, "strength is missing"),
        ({"answer": "left", "strength": 2}, "negative is left"),
        ({"answer": "left", "strength": -5}, "use -4 to -1 for left"),
        ({"answer": "left", "strength": True}, "use -4 to -1 for left"),
        ({"answer": "tie", "strength": 1}, "asked only after the answers left, right"),
        ({"rationale": ""}, "the reason is missing"),
        ({"rationale": "short"}, "has 5 characters; write 10 or more"),
        ({"aspects": {"helpful": "left"}}, "“correct” has no answer"),
        ({"aspects": {"helpful": "a", "correct": "tie"}}, "use left, right or tie"),
        ({"aspects": {"helpful": "tie", "correct": "tie", "new": "tie"}}, "there is no 'new'"),
        ({"ratings": {"left": {"overall": 5}}}, "“right” has no answer"),
        ({"ratings": {"left": {"overall": 6}, "right": {"overall": 1}}}, "use 1 to 5"),
        ({"ratings": [1]}, "not an object"),
        ({"reasons": ["rude"]}, "none of factual, tone"),
        ({"reasons": "tone"}, "not a list"),
        ({"rewrite": {"text": "A colour."}}, "as it was"),
        ({"rewrite": {"text": " "}}, "write 1 to"),
        ({"rewrite": {"of": "right", "text": "x"}}, "the better answer is left"),
        ({"rewrite": {"text": "a\x00"}}, "NUL"),
        ({"rewrite": "text"}, "rewrite is 'text'; use"),
        ({"spans": [{"on": "left", "start": 0, "end": 10, "category": "error"}]}, "9 characters"),
        ({"spans": [{"on": "left", "start": 3, "end": 3, "category": "error"}]}, "start < end"),
        ({"spans": [{"on": "a", "start": 0, "end": 3, "category": "error"}]}, "use left or right"),
        ({"spans": [{"on": "left", "start": 0, "end": 3, "category": "odd"}]}, "none of error"),
        ({"spans": [7]}, "span 1 is 7, not an object"),
        ({"known_model": "yes"}, "use true or false"),
        ({"ranking": [[1]]}, "ranks nothing"),
    ],
)
def test_a_reply_that_does_not_fit_is_refused(
    people: People, change: dict[str, Any], message: str
) -> None:
    asked = held(people, EVERYTHING)
    sent: dict[str, Any] = {"answer": "left", "strength": -1, "rationale": "Because I say so."}
    top = {name: value for name, value in change.items() if name in (*sent,)}
    details = REPLIES | {name: value for name, value in change.items() if name not in sent}
    with pytest.raises(AnnotateError, match=message):
        submit_judgment(**{**sent, **top}, details=details, **asked)
    assert not Judgment.objects.exists()


def test_a_hidden_question_need_not_be_answered_and_a_tie_has_no_strength(people: People) -> None:
    form = {
        "strength": 4,
        "aspects": [{"name": "helpful"}],
        "conditions": [{"show": "aspects", "when": {"answer": ["left", "right"]}}],
    }
    asked = held(people, form)
    judgment = submit_judgment(answer="tie", **asked)
    assert (judgment.answer, judgment.strength, judgment.details) == (Answer.TIE, None, {})


def test_where_both_are_bad_the_rewrite_says_of_which(people: People) -> None:
    asked = held(people, {"rewrite": "required"})
    with pytest.raises(AnnotateError, match="say of which"):
        submit_judgment(answer="both_bad", details={"rewrite": {"text": "Red."}}, **asked)
    with pytest.raises(AnnotateError, match="rewrite is missing"):
        submit_judgment(answer="right", **asked)
    judgment = submit_judgment(
        answer="both_bad", details={"rewrite": {"of": "right", "text": "Red."}}, **asked
    )
    assert judgment.details == {"rewrite": {"of": "b", "text": "Red."}}


def test_spans_count_code_points(people: People) -> None:
    project = create_project(
        workspace=people.workspace, name="Asked", slug="asked", form={"spans": ["error"]}
    )
    bob, assignment = lease(people, make_comparison(project, a="👩‍🚀 wrong", b="right"))
    side = "right" if assignment.swapped else "left"
    span = {"on": side, "start": 4, "end": 9, "category": "error"}
    judgment = submit_judgment(
        assignment=assignment, annotator=bob, answer="tie", idempotency_key="k",
        details={"spans": [span, span]},
    )  # fmt: skip
    (stored,) = judgment.details["spans"]
    assert "👩‍🚀 wrong"[stored["start"] : stored["end"]] == "wrong"
    assert stored["on"] == "a"


def test_another_form_is_another_version_and_a_lease_keeps_its_own(people: People) -> None:
    project = make_project(people.workspace)
    make_comparison(project)
    bob = make_annotator(people.workspace, people.bob)
    assignment = next_assignment(project=project, annotator=bob)
    assert assignment is not None
    update_project(project=project, form={"strength": 4})
    update_project(project=project, form={"strength": 4, "rationale": "optional", "spans": []})
    assert list(Guideline.objects.values_list("version", "form").order_by("version")) == [
        (1, {}),
        (2, {"strength": 4}),
    ]
    assert project.guidelines.get(version=2).text == project.guidelines.get(version=1).text
    judgment = submit_judgment(
        assignment=assignment, annotator=bob, answer="left", idempotency_key="k"
    )
    assert judgment.strength is None


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"mood": 1}, "there is no key 'mood'"),
        ({"strength": 5}, "allowed: 4, 8"),
        ({"strength": True}, "allowed: 4, 8"),
        ({"aspects": [{"name": ""}]}, "aspects 1: its name has 0 characters"),
        ({"aspects": [{"name": "one"}, {"name": "One"}]}, "names 'one' twice"),
        ({"aspects": ["helpful"]}, "not an object"),
        ({"aspects": "helpful"}, "must be a list"),
        ({"ratings": [{"name": "x", "low": 5, "high": 1}]}, "low below high"),
        ({"ratings": [{"name": "x", "low": 0, "high": 11}]}, "at most 11 points"),
        ({"ratings": [{"name": "x", "low": 0, "high": "5"}]}, "whole numbers"),
        ({"ratings": [{"name": "x", "low": 0, "high": 5, "step": 2}]}, "unknown key 'step'"),
        ({"reasons": ["a", "a"]}, "names 'a' twice"),
        ({"reasons": [None]}, "reasons 1: its name is missing"),
        ({"rationale": "sometimes"}, "allowed: off, optional, required"),
        ({"rationale": "off", "rationale_min": 3}, "needs a rationale"),
        ({"rationale_min": -1}, "allowed: 0 to"),
        ({"known_model": "yes"}, "allowed: True, False"),
        ({"conditions": [{"show": "spans", "when": {"answer": ["tie"]}}]}, "does not ask"),
        (
            {"spans": ["x"], "conditions": [{"show": "spans", "when": {"answer": ["a"]}}]},
            "'a' is no answer here",
        ),
        (
            {"spans": ["x"], "conditions": [{"show": "spans", "when": {"time": 1}}]},
            "when must be",
        ),
    ],
)
def test_a_form_that_cannot_be_asked_is_refused(form: dict[str, Any], message: str) -> None:
    with pytest.raises(AnnotateError, match=message):
        checked_form(kind="comparisons", form=form, answers=ANSWERS)


def test_a_text_and_a_ranking_are_asked_nothing_that_needs_two_sides() -> None:
    for kind in ("labels", "rankings"):
        with pytest.raises(AnnotateError, match="asked of two responses only"):
            checked_form(kind=kind, form={"strength": 4}, answers=[])
        found = checked_form(kind=kind, form={"reasons": ["tone"], "rewrite": "off"}, answers=[])
        assert found == {"reasons": ["tone"]}
