from __future__ import annotations

from typing import Any

import pytest

from tests.api.world import World
from training.models import Job, Run


def asked(world: World, **changes: Any) -> dict[str, Any]:
    body = {"project": "helpful", "version": world.base.pk, "prompt_set": world.prompt_set.pk}
    return {**body, **changes}


def test_a_sampling_is_queued(world: World) -> None:
    config = {"sample": {"max_new_tokens": 12, "temperature": 0.5}}
    made = world.rita.post("/samplings", asked(world, config=config))
    assert made.status_code == 201, made.content
    found = made.json()
    assert (found["method"], found["state"], found["round"]) == ("sample", "queued", None)
    assert found["config"]["sample"]["max_new_tokens"] == 12
    job = Job.objects.get(run=found["id"])
    assert job.payload == {"prompt_set": world.prompt_set.pk, "project": world.project.pk}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 999}, "version"),
        ({"project": "none"}, "project"),
        ({"prompt_set": 999}, "prompt set"),
        ({"config": {"sample": {"temperature": -1}}}, "temperature"),
        ({"config": {"sample": 5}}, "sample"),
        ({"config": {"x": 1}}, "x"),
        ({"config": {"evaluate": {"policy_adapter": "/etc"}}}, "policy_adapter"),
    ],
)
def test_what_is_impossible_is_refused(change: dict[str, Any], says: str, world: World) -> None:
    reply = world.rita.post("/samplings", asked(world, **change))
    assert reply.status_code == 422
    assert says in reply.json()["detail"]
    assert not Run.objects.filter(method="sample").exists()
