"""Which of allauth's addresses exist here: signing in and out and one's own password, no more."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from rlhf_platform.accounts.models import User
from rlhf_platform.accounts.secrets import make_sign_in_link
from tests.people import People


def test_nobody_takes_an_address_that_an_admin_may_invite_next(
    people: People, client: Client
) -> None:
    client.force_login(people.charlie)
    address = "newhire@example.org"
    client.post("/account/email/", {"action_add": "", "email": address})
    client.post("/account/email/", {"action_primary": "", "email": address})
    people.charlie.refresh_from_db()
    assert people.charlie.email == "charlie@example.org"
    assert not User.objects.filter(email=address).exists()


@pytest.mark.parametrize("path", ["email/", "confirm-email/", "password/reset/", "signup/"])
def test_what_needs_a_mail_server_is_not_there(path: str, people: People, client: Client) -> None:
    client.force_login(people.bob)
    assert client.get(f"/account/{path}").status_code == 404


def test_a_password_is_set_once_and_signs_in(people: People, client: Client) -> None:
    client.post(f"/sign-in/{make_sign_in_link(user=people.bob)}/")
    assert client.get("/account/password/change/").headers["Location"].endswith("/password/set/")
    words = "correct horse battery"
    page = client.post("/account/password/set/", {"password1": words, "password2": words})
    assert page.status_code == 302
    client.post("/account/logout/")
    page = client.get("/account/login/").content.decode()
    assert "Sign in" in page
    assert re.search("sign.?up/", page) is None
    reply = client.post("/account/login/", {"login": "bob@example.org", "password": words})
    assert reply.headers["Location"] == "/"


def test_signing_in_leads_to_no_other_site(people: People, client: Client) -> None:
    people.bob.set_password("correct horse battery")
    people.bob.save()
    body = {"login": "bob@example.org", "password": "correct horse battery"}
    for other in ("https://evil.example/", "//evil.example/", "javascript:alert(1)"):
        reply = Client().post(f"/account/login/?next={other}", {**body, "next": other})
        assert reply.headers["Location"] == "/"
    # A private page sends there and back again, whatever its address begins with.
    assert "evil" not in client.get("//evil.example/projects/").headers.get("Location", "")


def test_nobody_signs_up(db: None, client: Client) -> None:
    words = "correct horse battery"
    body = {"email": "x@example.org", "password1": words, "password2": words}
    client.post("/account/signup/", body)
    assert not User.objects.exists()
