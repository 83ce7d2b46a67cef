from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client

from rlhf_platform.accounts.models import SignInLink
from rlhf_platform.accounts.secrets import make_sign_in_link, redeem_sign_in_link
from tests.people import People


def test_redeeming_a_link_gives_its_user(people: People) -> None:
    secret = make_sign_in_link(user=people.bob)
    assert redeem_sign_in_link(secret=secret) == people.bob


def test_a_link_works_once(people: People) -> None:
    secret = make_sign_in_link(user=people.bob)
    redeem_sign_in_link(secret=secret)
    assert redeem_sign_in_link(secret=secret) is None


def test_an_expired_link_does_nothing(people: People) -> None:
    secret = make_sign_in_link(user=people.bob, lifetime=timedelta(seconds=-1))
    assert redeem_sign_in_link(secret=secret) is None


def test_an_inactive_person_cannot_come_in_by_link(people: People) -> None:
    secret = make_sign_in_link(user=people.bob)
    people.bob.is_active = False
    people.bob.save(update_fields=["is_active"])
    assert redeem_sign_in_link(secret=secret) is None


def test_only_the_digest_is_stored(people: People) -> None:
    secret = make_sign_in_link(user=people.bob)
    assert secret not in str(SignInLink.objects.values().get())


@pytest.mark.django_db
def test_an_unknown_secret_gives_nobody() -> None:
    assert redeem_sign_in_link(secret="nonsense") is None


def test_opening_the_link_alone_does_not_use_it_up(people: People, client: Client) -> None:
    secret = make_sign_in_link(user=people.bob)
    page = client.get(f"/sign-in/{secret}/")
    assert page.status_code == 200
    assert "no-store" in page.headers["Cache-Control"]
    assert client.head(f"/sign-in/{secret}/").status_code == 200
    assert SignInLink.objects.filter(used_at=None).count() == 1
    assert redeem_sign_in_link(secret=secret) == people.bob


def test_signing_in_by_link_makes_a_new_session_of_its_person(
    people: People, client: Client
) -> None:
    client.force_login(people.charlie)
    client.session["workspace"] = people.elsewhere.pk
    before = client.session.session_key
    address = f"/sign-in/{make_sign_in_link(user=people.bob)}/"
    assert client.post(address).headers["Location"] == "/"
    assert client.session.session_key != before
    assert client.session["_auth_user_id"] == str(people.bob.pk)
    assert "workspace" not in client.session
    assert client.post(address).status_code == 410


def test_a_sign_in_from_another_site_is_refused(people: People) -> None:
    secret = make_sign_in_link(user=people.bob)
    strict = Client(enforce_csrf_checks=True)
    reply = strict.post(f"/sign-in/{secret}/")
    assert reply.status_code == 403
    assert "the page was open for long" in reply.content.decode()
    assert SignInLink.objects.filter(used_at=None).exists()


def test_a_strange_secret_is_a_spent_link(db: None, client: Client) -> None:
    for secret in ("%00", "%ED%A0%80", "x" * 5000):
        assert client.post(f"/sign-in/{secret}/").status_code == 410
