from __future__ import annotations

import pytest

from annotate.errors import AnnotateError, ImportRefused
from annotate.models import Comparison, Project, Response, ResponseOrigin
from annotate.services.ingest import open_comparison, store_prompt, store_response
from tests.factories import make_comparison, make_project, make_prompt, make_response
from tests.people import People

ASKED = [{"role": "user", "content": "What is red?"}]


@pytest.fixture
def project(people: People) -> Project:
    return make_project(people.workspace, overlap=2)


def test_a_prompt_is_stored_once_in_a_workspace(people: People) -> None:
    first = store_prompt(workspace=people.workspace, messages=ASKED)
    assert store_prompt(workspace=people.workspace, messages=ASKED) == first
    assert make_prompt(people.workspace, "What is red?") == first
    assert store_prompt(workspace=people.elsewhere, messages=ASKED) != first


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "assistant", "content": "A"}],
        [{"role": "robot", "content": "A"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": "\ud83d"}],
    ],
)
def test_a_prompt_that_asks_nothing_is_refused(
    people: People, messages: list[dict[str, str]]
) -> None:
    with pytest.raises(ImportRefused, match="the prompt cannot be stored"):
        store_prompt(workspace=people.workspace, messages=messages)


def test_equal_texts_are_one_response_with_two_origins(people: People) -> None:
    prompt = make_prompt(people.workspace)
    given = {"prompt": prompt, "text": "A colour.", "kind": "model"}
    first = store_response(**given, reference="version:1", details={"seed": 1})
    again = store_response(**given, reference="version:1", details={"seed": 2})
    other = store_response(**given, reference="version:2")
    assert first == again == other
    origins = ResponseOrigin.objects.order_by("reference").values_list("reference", "details")
    assert list(origins) == [("version:1", {"seed": 1}), ("version:2", {})]


def test_an_empty_response_is_stored_and_half_a_surrogate_is_not(people: People) -> None:
    prompt = make_prompt(people.workspace)
    assert store_response(prompt=prompt, text="", kind="model", reference="x").text == ""
    with pytest.raises(ImportRefused, match="NUL"):
        store_response(prompt=prompt, text="a\0b", kind="model", reference="x")
    with pytest.raises(
        ImportRefused, match=r"the response cannot be stored: its text holds half a surrogate"
    ):
        store_response(prompt=prompt, text="\udc00", kind="model", reference="x")
    assert Response.objects.count() == 1


def test_a_comparison_is_opened_once_whichever_response_comes_first(project: Project) -> None:
    prompt = make_prompt(project.workspace)
    old, new = make_response(prompt, "old"), make_response(prompt, "new")
    given = {"project": project, "origin": "old_new", "origin_reference": "round:3"}
    opened = open_comparison(first=old, second=new, propensity=0.5, priority=7, **given)
    assert opened is not None
    assert open_comparison(first=new, second=old, **given) == opened
    assert opened.response_a.digest < opened.response_b.digest
    assert (opened.slots, opened.propensity, opened.priority) == (2, 0.5, 7)
    assert make_digest(opened) == opened.digest


def make_digest(comparison: Comparison) -> str:
    other = make_project(comparison.workspace, slug="other")
    return make_comparison(other, a="old", b="new").digest


def test_the_same_text_twice_is_no_comparison(project: Project) -> None:
    response = make_response(make_prompt(project.workspace), "same")
    opened = open_comparison(project=project, first=response, second=response, origin="on_policy")
    assert opened is None
    assert not Comparison.objects.exists()


def test_responses_to_two_prompts_or_of_two_workspaces_do_not_compare(
    people: People, project: Project
) -> None:
    one = make_response(make_prompt(people.workspace, "one"), "a")
    two = make_response(make_prompt(people.workspace, "two"), "b")
    with pytest.raises(AnnotateError, match="two responses to different prompts"):
        open_comparison(project=project, first=one, second=two, origin="on_policy")
    prompt = make_prompt(people.elsewhere)
    pair = make_response(prompt, "a"), make_response(prompt, "b")
    with pytest.raises(AnnotateError, match="belong to different workspaces: project, response"):
        open_comparison(project=project, first=pair[0], second=pair[1], origin="on_policy")
