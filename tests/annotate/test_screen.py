"""The judging screen over HTTP, who may see what, and hostile text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from django.test import Client

from annotate.models import Comparison, Judgment
from annotate.rendering import ATTRIBUTES, TAGS, render
from tests.factories import make_comparison, make_project
from tests.people import People

HOSTILE = [
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "[click](javascript:alert(1))",
    "[click](data:text/html;base64,PHNjcmlwdD4=)",
    "![pixel](http://127.0.0.1/track.png)",
    "<svg/onload=alert(1)>",
    '<a href="vbscript:x" style="position:fixed" onclick=1>x</a>',
    '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    "<form action=/account/logout/><input name=answer value=left></form>",
    "</textarea></div></main><style>*{display:none}</style>",
    '"><b id="answer-form">',
    "<math><mtext><style><img src onerror=alert(1)>",
]


class Elements(HTMLParser):
    """Collects every tag and attribute of a piece of HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


@pytest.mark.parametrize("text", HOSTILE)
def test_only_allowed_elements_survive_rendering(text: str) -> None:
    parser = Elements()
    parser.feed(render(text))
    for tag, attributes in parser.seen:
        assert tag in TAGS
        assert set(attributes) <= ATTRIBUTES.get(tag, set()) | {"rel", "tabindex"}
        assert (attributes.get("href") or "https:").split(":")[0] in {"http", "https", "mailto"}


def test_markdown_is_rendered_and_text_is_kept() -> None:
    html = render("# Title\n\n**bold** & <tag> | `code`")
    assert "<h1>Title</h1>" in html
    assert "<strong>bold</strong> &amp; &lt;tag&gt;" in html


@pytest.mark.parametrize(
    "text", ["![" * 10_000, "[" * 100_000, "[a* b` c " * 9_000, "word " * 9_000]
)
def test_long_and_bracketed_answers_are_plain_text(text: str) -> None:
    # As Markdown they take seconds, in which nobody else is served.
    assert render(text + "<i>").startswith('<pre tabindex="0">')
    assert "&lt;i&gt;" in render(text + "<i>").replace("&#32;", " ")


def test_a_person_judges_without_javascript(people: People, client: Client) -> None:
    comparison = make_comparison(make_project(people.workspace), a="**first**", b="second")
    client.force_login(people.bob)
    page = client.get("/judge/helpful/").content.decode()
    assert "<strong>first</strong>" in page
    assignment = re.search(r'name="assignment" value="(\d+)"', page)
    key = re.search(r'name="key" value="(\w+)"', page)
    assert assignment
    assert key
    body = {"assignment": assignment[1], "key": key[1], "answer": "tie", "rationale": "same"}
    reply = client.post("/judge/helpful/answer", body, follow=True)
    assert "Nothing left for you here" in reply.content.decode()
    judgment = Judgment.objects.get(comparison=comparison)
    assert (judgment.answer, judgment.rationale, judgment.active_ms) == ("tie", "same", None)


def test_submit_and_next_are_one_request_of_few_queries(
    people: People, client: Client, django_assert_max_num_queries: object
) -> None:
    project = make_project(people.workspace)
    for number in range(3):
        make_comparison(project, prompt=f"{number}?")
    client.force_login(people.bob)
    page = client.get("/judge/helpful/").content.decode()
    assignment = re.search(r'name="assignment" value="(\d+)"', page)
    assert assignment
    body = {
        "assignment": assignment[1],
        "key": "k",
        "answer": "left",
        "active_ms": "1200",
        "next": "1",
    }
    with django_assert_max_num_queries(20):  # type: ignore[operator]
        reply = client.post("/judge/helpful/answer", body, headers={"X-Requested-With": "fetch"})
    assert 'id="answer-form"' in reply.json()["next"]["html"]
    assert Judgment.objects.get().active_ms == 1200


def test_an_answer_that_is_missing_is_asked_for_again(people: People, client: Client) -> None:
    make_comparison(make_project(people.workspace))
    client.force_login(people.bob)
    page = client.get("/judge/helpful/").content.decode()
    assignment = re.search(r'name="assignment" value="(\d+)"', page)
    assert assignment
    for body in ({"assignment": assignment[1], "key": "k"}, {"assignment": "x" * 40}):
        reply = client.post("/judge/helpful/answer", body, headers={"X-Requested-With": "fetch"})
        assert reply.status_code in (404, 422)
    assert not Judgment.objects.exists()


def test_an_annotator_sees_no_origin(people: People, client: Client) -> None:
    comparison = make_comparison(make_project(people.workspace))
    Comparison.objects.filter(pk=comparison.pk).update(
        origin="old_new", origin_reference="round:4711"
    )
    client.force_login(people.bob)
    page = client.get("/judge/helpful/").content.decode()
    assert "4711" not in page
    assert "old_new" not in page


def test_somebody_elses_assignment_cannot_be_answered(people: People, client: Client) -> None:
    make_comparison(make_project(people.workspace))
    client.force_login(people.bob)
    page = client.get("/judge/helpful/").content.decode()
    assignment = re.search(r'name="assignment" value="(\d+)"', page)
    assert assignment
    client.force_login(people.rita)
    body = {"assignment": assignment[1], "key": "k", "answer": "left"}
    assert client.post("/judge/helpful/answer", body).status_code == 404


ANNOTATOR = ["/judge/", "/judge/helpful/"]
RESEARCHER = ["/projects/", "/projects/helpful/", "/rounds/", "/models/"]


def test_each_role_sees_its_pages_and_no_other(people: People, client: Client) -> None:
    make_project(people.workspace)
    for address in ANNOTATOR + RESEARCHER:
        client.logout()
        assert client.get(address).status_code == 302, address
        client.force_login(people.bob)
        assert client.get(address).status_code == (403 if address in RESEARCHER else 200), address
        client.force_login(people.rita)
        assert client.get(address).status_code == 200, address
        client.force_login(people.charlie)
        outside = 404 if "helpful" in address else 200
        reply = client.get(address)
        assert reply.status_code == outside, address
        assert "Helpful" not in reply.content.decode()


def test_nothing_changes_by_get(people: People, client: Client) -> None:
    make_project(people.workspace)
    client.force_login(people.alice)
    for address in ("/judge/helpful/answer", "/judge/helpful/undo", "/projects/helpful/freeze"):
        assert client.get(address).status_code == 405


def test_the_policy_against_foreign_content_is_strict(people: People, client: Client) -> None:
    client.force_login(people.bob)
    policy = client.get("/judge/").headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


def test_a_link_signs_in_once(people: People, client: Client) -> None:
    from rlhf_platform.accounts.secrets import make_sign_in_link

    address = f"/sign-in/{make_sign_in_link(user=people.bob)}/"
    assert client.get(address).status_code == 200
    assert client.post(address).status_code == 302
    assert client.get("/judge/").status_code == 200
    assert Client().post(address).status_code == 410
