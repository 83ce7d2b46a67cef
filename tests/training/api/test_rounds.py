from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.world import BASE, World
from training.models import Job, ModelVersion, Round
from training.services import queueing
from training.services.launching import launch_round
from training.services.rounds import advance_round


def asked(world: World, **changes: Any) -> dict[str, Any]:
    return {
        "project": "helpful",
        "snapshot": world.snapshot.pk,
        "method": "dpo",
        "reference": world.base.pk,
        "fresh_prompts": world.prompt_set.pk,
        **changes,
    }


def test_a_round_is_launched_and_read(world: World) -> None:
    config = {"policy": {"optim": {"lr": 1e-4}, "dpo": {"beta": 0.2}}}
    made = world.rita.post("/rounds", asked(world, config=config))
    assert made.status_code == 201, made.content
    found = made.json()
    assert (found["number"], found["state"]) == (2, "training_reward")
    assert found["config"] == config
    assert [(run["stage"], run["state"]) for run in found["runs"]] == [("reward", "queued")]
    assert found["comparisons_opened"] == 0
    assert world.rita.get(f"/rounds/{found['id']}").json() == found
    assert Round.objects.get(pk=found["id"]).created_by == world.people.rita


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"project": "none"}, "project"),
        ({"snapshot": 999}, "snapshot"),
        ({"reference": 999}, "reference"),
        ({"fresh_prompts": 999}, "fresh_prompts"),
        ({"reward_version": 999}, "reward_version"),
        ({"method": "best_of_n"}, "method"),
        ({"config": []}, "config"),
        ({"config": {"policy": {"x": "\0"}}}, "config"),
        ({"config": {"a": {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}}}}, "config"),
        ({"metod": "dpo"}, "metod"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str, world: World) -> None:
    reply = world.rita.post("/rounds", asked(world, **change))
    assert reply.status_code == 422
    assert [error["field"] for error in reply.json()["errors"]] == [field]
    assert Round.objects.count() == 1


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"polcy": {}}, "polcy"),
        ({"policy": {"optim": {"lr": "fast"}}}, "lr"),
        ({"policy": {"optim": 5}}, "optim"),
        ({"policy": {"dpo": 5}}, "dpo"),
        ({"policy": {"dpo": None}}, "dpo"),
        ({"policy": [1]}, "policy"),
        ({"adapter": None}, "adapter"),
        ({"adapter": {"init_from": "/etc"}}, "init_from"),
        ({"evaluate": {"evaluate": {"reward_adapter": "/etc"}}}, "reward_adapter"),
        ({"sample": {"sample": 5}}, "sample"),
        ({"seed": "x"}, "seed"),
        ({"seed": -1}, "seed"),
    ],
)
def test_an_impossible_config_is_refused_in_words(
    config: dict[str, Any], says: str, world: World
) -> None:
    reply = world.rita.post("/rounds", asked(world, config=config))
    assert reply.status_code == 422, reply.content
    assert reply.json()["type"] == "urn:annotate-and-align:cannot-launch"
    assert says in reply.json()["detail"]
    assert Round.objects.count() == 1


@pytest.mark.parametrize(
    ("ppo", "field"),
    [
        ({"reward_url": "https://example.org/score"}, "reward_url"),
        ({"reward_model": "someone/scores"}, "reward_model"),
        ({"reward_url_retries": 5}, "reward_url_retries"),  # no address may be given with it either
    ],
)
def test_another_reward_than_the_rounds_own_is_refused_with_the_way_out(
    ppo: dict[str, Any], field: str, world: World
) -> None:
    body = asked(world, method="ppo", config={"policy": {"ppo": ppo}})
    reply = world.rita.post("/rounds", body)
    assert reply.status_code == 422, reply.content
    said = reply.json()["detail"]
    assert said.startswith(f"policy: {field} is not for rounds: a round scores with its own reward")
    assert f"Leave {field} out" in said
    assert "(reward_version)" in said
    assert "exactly one" not in said
    assert Round.objects.count() == 1
    # the settings that stay are fine
    assert world.rita.post("/rounds", asked(world, method="ppo")).status_code == 201


def test_fine_tuning_takes_no_reward_model(world: World) -> None:
    reward = ModelVersion.objects.create(
        workspace=world.people.workspace, kind="reward", name="r", base=world.base.base,
        adapter_path="r/adapter", digest="r",
    )  # fmt: skip
    reply = world.rita.post("/rounds", asked(world, method="sft", reward_version=reward.pk))
    assert reply.status_code == 422, reply.content
    assert "fine-tuning uses no reward model" in reply.json()["detail"]


def test_things_of_another_workspace_do_not_exist(world: World) -> None:
    theirs = ModelVersion.objects.create(
        workspace=world.people.elsewhere, kind="base", name="theirs", base={}, digest="x"
    )
    reply = world.rita.post("/rounds", asked(world, reference=theirs.pk))
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["field"] == "reference"
    assert "theirs" not in reply.content.decode()


def test_progress_is_cheap_to_poll(world: World, django_assert_num_queries: Any) -> None:
    world.run.events.create(
        attempt=1, seq=1, kind="progress", at=world.run.created_at,
        body={"step": 3, "total_steps": 9},
    )  # fmt: skip
    rita, place = world.rita, f"/rounds/{world.round.pk}/progress"
    rita.get(place)
    with django_assert_num_queries(4):  # token with membership, round, run, event
        assert rita.get(place).json() == {
            "state": "training_reward", "stage": "reward", "step": 3, "total_steps": 9,
            "over": False,
        }  # fmt: skip


def test_cancel_then_retry(world: World) -> None:
    place = f"/rounds/{world.round.pk}"
    cancelled = world.rita.post(f"{place}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert world.rita.get(f"{place}/progress").json()["over"] is True
    again = world.rita.post(f"{place}/retry")
    assert (again.status_code, again.json()["state"]) == (200, "training_reward")
    assert Job.objects.get(run=world.run).state == Job.State.QUEUED
    assert world.rita.post(f"{place}/retry").status_code == 409


def test_a_running_round_hears_of_its_cancel(world: World) -> None:
    claim = queueing.claim_next(queues=["training"])
    assert claim is not None
    reply = world.rita.post(f"/rounds/{world.round.pk}/cancel")
    assert reply.status_code == 200
    assert reply.json()["state"] == "training_reward"
    assert Job.objects.get(run=world.run).cancel_requested


def awaiting(world: World) -> str:
    policy = ModelVersion.objects.create(
        workspace=world.people.workspace, project=world.project, kind="policy", name="policy",
        base=world.base.base, parent=world.base, adapter_path="x", digest="policy",
    )  # fmt: skip
    advance_round(round=world.round, to=Round.State.AWAITING_VERDICT)
    Round.objects.filter(pk=world.round.pk).update(policy_version=policy)
    return f"/rounds/{world.round.pk}"


@pytest.mark.parametrize(("verb", "state"), [("promote", "promoted"), ("reject", "rejected")])
def test_the_verdict_reaches_the_version(verb: str, state: str, world: World) -> None:
    place = awaiting(world)
    reply = world.rita.post(f"{place}/{verb}")
    assert (reply.status_code, reply.json()["state"]) == (200, state)
    version = world.rita.get(f"/versions/{reply.json()['policy_version']}").json()
    assert version["state"] == state


def test_a_verdict_too_early_or_against_the_first_is_409(world: World) -> None:
    early = world.rita.post(f"/rounds/{world.round.pk}/promote")
    assert early.status_code == 409
    assert early.json()["type"] == "urn:annotate-and-align:illegal-transition"
    place = awaiting(world)
    world.rita.post(f"{place}/reject")
    for verb in ("promote", "cancel", "retry"):
        assert world.rita.post(f"{place}/{verb}").status_code == 409


def test_lists_are_filtered(world: World) -> None:
    for query, count in (
        ({}, 1),
        ({"project": "helpful", "state": "training_reward", "method": "dpo"}, 1),
        ({"project": "none"}, 0),
        ({"method": "ppo"}, 0),
    ):
        assert world.rita.get("/rounds", **query).json()["count"] == count
    assert world.rita.get("/rounds", state="x").status_code == 422


def test_lists_and_rounds_cost_the_same_queries_however_long(
    world: World, django_assert_num_queries: Any
) -> None:
    rita = world.rita
    rita.get("/rounds")
    for wanted in (1, 4):
        for _ in range(Round.objects.count(), wanted):
            launch_round(
                project=world.project, snapshot=world.snapshot, method="sft",
                reference=world.base, fresh_prompts=world.prompt_set,
            )  # fmt: skip
        with django_assert_num_queries(3):
            assert rita.get("/rounds").json()["count"] == wanted
        with django_assert_num_queries(
            6
        ):  # token with membership, round, runs, jobs, opened, alarms
            rita.get(f"/rounds/{world.round.pk}")


def test_settings_that_no_database_holds_are_refused(world: World) -> None:
    for bad in ("1e999", "-1e999", '"a\\u0000"', '"\\ud800"', "NaN"):
        text = json.dumps(asked(world, config={"policy": {"optim": {"weight_decay": "X"}}}))
        reply = world.rita._client.generic(
            "POST", f"{BASE}/rounds", text.replace('"X"', bad), "application/json",
            headers=world.rita._headers,
        )  # fmt: skip
        assert reply.status_code in (400, 422), (bad, reply.content)
