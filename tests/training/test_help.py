"""The documentation inside the platform."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from tests.people import People
from training.views.help import contents, page_html

pytestmark = pytest.mark.django_db


def test_every_page_of_the_documentation_opens_from_the_contents(
    people: People, client: Client
) -> None:
    client.force_login(people.bob)
    listed = re.findall(r'href="(/help/[^"]+)"', client.get("/help/").content.decode())
    assert len(listed) == len(contents()) > 20
    for address in listed:
        assert client.get(address).status_code == 200, address


def test_links_between_pages_lead_somewhere(people: People, client: Client) -> None:
    client.force_login(people.bob)
    body = client.get("/help/explanations/post-training.md").content.decode()
    assert 'href="../methods/dpo.md"' in body
    assert client.get("/help/methods/dpo.md").status_code == 200
    # What is not served keeps its words alone: the benchmarks are no part of docs/.
    assert "benchmarks/README.md" not in page_html("explanations/when-to-use-what.md")


def test_only_the_documentation_is_served(people: People, client: Client) -> None:
    client.force_login(people.bob)
    for path in ("../README.md", "methods/../../manage.py", "decisions/0008.md", "methods/none.md"):
        assert client.get(f"/help/{path}").status_code == 404, path
    assert client.get("/help/methods/dpo").headers["Location"] == "/help/methods/dpo.md"


def test_a_stranger_is_asked_to_sign_in(client: Client) -> None:
    assert client.get("/help/").status_code == 302
