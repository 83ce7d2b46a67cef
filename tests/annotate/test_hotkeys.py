"""A person's keys are kept with them: by the plain form, by the screen, over the API."""

from __future__ import annotations

import pytest
from django.test import Client

from annotate.errors import AnnotateError
from annotate.models import Hotkeys
from annotate.services.hotkeys import FIRST, hotkeys_of, keep_hotkeys
from tests.api.world import caller
from tests.factories import make_comparison, make_project
from tests.people import People

pytestmark = pytest.mark.django_db


def test_the_plain_form_keeps_them(people: People, client: Client) -> None:
    make_comparison(make_project(people.workspace))
    client.force_login(people.bob)
    page = client.get("/my-work/").content.decode()
    assert 'name="skip" value="S"' in page
    sent = {"pace": "on", **FIRST, "skip": "X"}
    said = client.post("/my-work/keys", sent, follow=True).content.decode()
    assert "Saved." in said
    assert 'name="skip" value="X"' in said
    wishes = hotkeys_of(user=people.bob)
    assert (wishes.on, wishes.pace, wishes.keys) == (False, True, {"skip": "x"})
    assert '"keys": {"skip": "x"}' in client.get("/judge/helpful/").content.decode()
    # An empty box is the key it was at first.
    client.post("/my-work/keys", {"on": "on", "skip": ""})
    assert hotkeys_of(user=people.bob).keys == {}
    refused = client.post("/my-work/keys", {"skip": "f"}, follow=True).content.decode()
    assert "F is the key for both “skip” and “flag”" in refused


def test_the_screen_gets_json(people: People, client: Client) -> None:
    client.force_login(people.bob)
    headers = {"X-Requested-With": "fetch"}
    good = client.post("/my-work/keys", {"on": "on", "undo": "b"}, headers=headers)
    assert (good.status_code, good.json()) == (200, {"problem": ""})
    for wrong in ({"undo": "s"}, {"undo": "bb"}):
        assert client.post("/my-work/keys", wrong, headers=headers).status_code == 422
    assert Hotkeys.objects.get(user=people.bob).keys == {"undo": "b"}


def test_the_api_reads_and_sets_them(people: People) -> None:
    bob = caller(people.bob, people.workspace)
    assert bob.get("/my/keys").json() == {"on": True, "pace": True, "keys": {}}
    told = bob.send("PUT", "/my/keys", {"on": False, "keys": {"tie": "T", "help": "?"}}).json()
    assert told == {"on": False, "pace": True, "keys": {"tie": "t"}}
    assert bob.get("/my/keys").json() == told
    rita = caller(people.rita, people.workspace)
    assert rita.get("/my/keys").json()["keys"] == {}


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"fly": "x"}, "no key does 'fly'"),
        ({"skip": ""}, "one visible character"),
        ({"skip": " "}, "one visible character"),
        ({"skip": "u"}, "S|U is the key for both"),
        ({"skip": "x", "undo": "x"}, "X is the key for both"),
    ],
)
def test_keys_that_cannot_be_are_refused(people: People, keys: dict[str, str], reason: str) -> None:
    with pytest.raises(AnnotateError, match=reason):
        keep_hotkeys(user=people.bob, on=True, pace=True, keys=keys)
    assert not Hotkeys.objects.exists()
    # Two may change places.
    swapped = keep_hotkeys(user=people.bob, on=True, pace=True, keys={"skip": "f", "flag": "s"})
    assert swapped.keys == {"skip": "f", "flag": "s"}
