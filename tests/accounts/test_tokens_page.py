"""A person's own API tokens, and the switch between workspaces."""

from __future__ import annotations

import re
from typing import Any

from django.test import Client

from rlhf_platform.accounts.models import ApiToken, Membership, Role
from rlhf_platform.accounts.secrets import digest, make_api_token
from tests.factories import make_project
from tests.people import People


def test_a_token_is_made_shown_once_and_revoked(people: People, client: Client) -> None:
    client.force_login(people.bob)
    page = client.post("/account/tokens/", {"name": "notebook <1>"}).content.decode()
    secret = re.search(r">(aa_[\w-]+)<", page)
    assert secret
    token = ApiToken.objects.get(digest=digest(secret[1]))
    assert (token.user, token.workspace) == (people.bob, people.workspace)
    page = client.get("/account/tokens/").content.decode()
    assert secret[1] not in page
    assert "notebook &lt;1&gt;" in page
    client.post(f"/account/tokens/{token.pk}/revoke")
    token.refresh_from_db()
    assert token.revoked_at is not None


def test_a_token_needs_a_name(people: People, client: Client) -> None:
    client.force_login(people.bob)
    for name in ("", "   ", "x" * 81, "a\x00b"):
        assert client.post("/account/tokens/", {"name": name}).status_code == 422
    assert not ApiToken.objects.exists()


def test_nobody_sees_or_revokes_anothers(
    people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    make_api_token(user=people.bob, workspace=people.workspace, name="bobs")
    token = ApiToken.objects.get()
    for other in (people.alice, people.charlie):
        client.force_login(other)
        with django_assert_max_num_queries(5):
            assert "bobs" not in client.get("/account/tokens/").content.decode()
        assert client.post(f"/account/tokens/{token.pk}/revoke").status_code == 404
    token.refresh_from_db()
    assert token.revoked_at is None


def test_a_person_of_two_workspaces_switches_between_them(people: People, client: Client) -> None:
    Membership.objects.create(workspace=people.elsewhere, user=people.rita, role=Role.ANNOTATOR)
    make_project(people.workspace)
    client.force_login(people.rita)
    page = client.get("/projects/").content.decode()
    assert "Helpful" in page
    assert 'value="elsewhere"' in page
    client.post("/account/workspace", {"workspace": "elsewhere"})
    assert client.get("/projects/").status_code == 403  # an annotator there
    client.post("/account/workspace", {"workspace": "lab"})
    assert "Helpful" in client.get("/projects/").content.decode()


def test_nobody_switches_into_a_workspace_of_others(people: People, client: Client) -> None:
    client.force_login(people.rita)
    for slug in ("elsewhere", "", "nowhere", "lab\x00", "ä" * 500):
        assert client.post("/account/workspace", {"workspace": slug}).status_code == 404
    assert 'value="elsewhere"' not in client.get("/projects/").content.decode()
