"""Launching twice with one key: one round, also when both come at once."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from annotate.services.projects import create_project
from tests.api.world import World
from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_prompt_set, make_snapshot
from training.errors import CannotLaunch, LaunchKeyReused
from training.models import Job, Round
from training.services.launching import launch_round
from training.services.versions import base_version


def asked(people: People) -> dict[str, Any]:
    project = make_project(people.workspace)
    return {
        "project": project,
        "snapshot": make_snapshot(project),
        "method": "dpo",
        "reference": base_version(workspace=people.workspace),
        "fresh_prompts": make_prompt_set(people.workspace),
        "config": {"policy": {"optim": {"lr": 1e-4}}},
    }


def test_the_same_key_and_settings_give_the_same_round(people: People) -> None:
    settings = asked(people)
    first = launch_round(**settings, launch_key="k")
    assert launch_round(**settings, launch_key="k") == first
    assert (Round.objects.count(), Job.objects.count()) == (1, 1)
    assert launch_round(**settings, launch_key="another") != first
    assert launch_round(**settings) != launch_round(**settings)  # no key, no memory


def test_it_stays_the_same_launch_once_the_round_has_its_reward_model(people: People) -> None:
    settings = asked(people)
    first = launch_round(**settings, launch_key="k")
    first.reward_version = settings["reference"]
    first.save()
    assert launch_round(**settings, launch_key="k") == first


@pytest.mark.parametrize("change", ["method", "config"])
def test_a_key_is_good_for_one_launch(people: People, change: str) -> None:
    settings = asked(people)
    launch_round(**settings, launch_key="k")
    settings[change] = {"method": "ppo", "config": {}}[change]
    with pytest.raises(LaunchKeyReused, match="round 1"):
        launch_round(**settings, launch_key="k")
    assert Round.objects.count() == 1


def test_two_workspaces_may_use_the_same_key(people: People, world: World) -> None:
    theirs = create_project(workspace=people.elsewhere, name="Theirs", slug="theirs")
    launch_round(
        project=theirs,
        snapshot=make_snapshot(theirs),
        method="dpo",
        reference=base_version(workspace=people.elsewhere),
        fresh_prompts=make_prompt_set(people.elsewhere),
        launch_key="k",
    )
    assert world.rita.post("/rounds", body(world, idempotency_key="k")).status_code == 201


@pytest.mark.parametrize("key", ["k" * 65, "a\0b", "\ud800"])
def test_a_key_that_cannot_be_kept_is_refused(people: People, key: str) -> None:
    with pytest.raises(CannotLaunch, match="the launch key"):
        launch_round(**asked(people), launch_key=key)


def test_a_refused_launch_uses_no_key_up(people: People) -> None:
    settings = asked(people)
    with pytest.raises(CannotLaunch):
        launch_round(**settings | {"config": {"policy": {"optim": {"lr": 9}}}}, launch_key="k")
    assert launch_round(**settings, launch_key="k").number == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("projects", [1, 2])
def test_two_launches_at_once_are_one(people: People, projects: int) -> None:
    settings = [asked(people)]
    if projects == 2:  # whose rows are not one lock
        other = make_project(people.workspace, slug="other")
        settings.append(settings[0] | {"project": other, "snapshot": make_snapshot(other)})
    ready, found = threading.Barrier(4), list[object]()

    def launch(number: int) -> None:
        ready.wait()
        try:
            found.append(launch_round(**settings[number % projects], launch_key="k").pk)
        except LaunchKeyReused as error:
            found.append(type(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=launch, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    made = Round.objects.get()
    expected = [made.pk] * 4 if projects == 1 else [made.pk] * 2 + [LaunchKeyReused] * 2
    assert sorted(found, key=str) == sorted(expected, key=str)


# The form ---------------------------------------------------------------------------------------


def key_in(page: str) -> str:
    found = re.search(r'name="launch_key" value="([0-9a-f]{32})"', page)
    assert found is not None
    return found[1]


@pytest.fixture
def form(people: People, client: Client) -> dict[str, Any]:
    settings = asked(people)
    client.force_login(people.rita)
    return {
        "snapshot": settings["snapshot"].pk,
        "method": "dpo",
        "reference": settings["reference"].pk,
        "fresh_prompts": settings["fresh_prompts"].pk,
        "reward_version": "",
        "config": '{"policy": {"optim": {"lr": 1e-4}}}',
        "launch_key": key_in(client.get("/rounds/").content.decode()),
    }


def test_pressing_twice_launches_one_round_and_shows_it_twice(
    form: dict[str, Any], client: Client
) -> None:
    replies = [client.post("/rounds/", form) for _ in range(2)]
    made = Round.objects.get()
    assert [reply.headers["Location"] for reply in replies] == [f"/rounds/{made.pk}/"] * 2
    assert made.config == {"policy": {"optim": {"lr": 1e-4}}}
    assert key_in(client.get("/rounds/").content.decode()) != form["launch_key"]


def test_a_form_that_launched_something_else_asks_once_more(
    form: dict[str, Any], client: Client
) -> None:
    client.post("/rounds/", form)
    changed = form | {"method": "ppo"}
    reply = client.post("/rounds/", changed)
    page = reply.content.decode()
    assert (reply.status_code, Round.objects.count()) == (422, 1)
    assert "has launched a round already" in page
    client.post("/rounds/", changed | {"launch_key": key_in(page)})
    assert Round.objects.count() == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "This is not JSON"),
        ("[1]", "An object was expected"),
        ("[" * 5000, "Nested too deeply"),
        ('{"policy": {"optim": {"lr": 1e999}}}', "Numbers must be finite"),
        ('{"polcy": {}}', "unknown sections polcy"),
        ('{"policy": {"optim": {"lr": 9}}}', "optim.lr is 9"),
        ('{"policy": {"optim": {"rate": 1}}}', "unknown fields: rate; known: adam_eps, batch_size"),
        ('{"policy": {"adapter": {"r": 8}}}', "policy: adapter is one for the whole round"),
        ('{"reward": {"seed": 1}}', "reward: seed is one for the whole round"),
        ('{"policy": {"threads": 8}}', "policy: threads is set by the round itself"),
        ('{"policy": {"tuning": "full"}}', "policy: tuning is one for the whole round"),
    ],
)
def test_settings_that_cannot_be_are_named(
    form: dict[str, Any], client: Client, text: str, words: str
) -> None:
    reply = client.post("/rounds/", form | {"config": text})
    assert reply.status_code == 422
    assert words in reply.content.decode()
    assert Round.objects.count() == 0


# The API ----------------------------------------------------------------------------------------


def body(world: World, **more: Any) -> dict[str, Any]:
    return {
        "project": "helpful",
        "snapshot": world.snapshot.pk,
        "method": "dpo",
        "reference": world.base.pk,
        "fresh_prompts": world.prompt_set.pk,
        **more,
    }


def test_a_repeated_post_is_200_and_another_launch_409(world: World) -> None:
    first = world.rita.post("/rounds", body(world, idempotency_key="k"))
    again = world.rita.post("/rounds", body(world, idempotency_key="k"))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    other = world.rita.post("/rounds", body(world, idempotency_key="k", method="ppo"))
    assert other.status_code == 409
    assert other.json()["type"] == "urn:annotate-and-align:key-reused"
    assert "the key was used for another launch" in other.json()["detail"]
    assert Round.objects.count() == 2  # the world's own, and this one
