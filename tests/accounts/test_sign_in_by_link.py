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
    assert client.get("/healthz").status_code == 200
    assert SignInLink.objects.filter(used_at=None).count() == 1
    assert redeem_sign_in_link(secret=secret) == people.bob
