"""The planner on pages, in the launch form and in the API."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from tests.api.world import World
from tests.people import People
from tests.training.rows import make_version
from training.engine.errors import BaseModelError
from training.engine.packaged import PACKAGED
from training.engine.planner import plan
from training.engine.planner_shapes import shape_of
from training.models import ModelVersion
from training.selectors.plans import WIDTH, planned, run_config, version_shape

DEMO = PACKAGED["demo"].config
SHAPE = shape_of(DEMO, "demo")


def test_the_parts_of_the_picture_are_the_terms_and_fill_what_the_run_takes() -> None:
    config = run_config("dpo", {"base": {"quantization": "nf4"}, "row_budget": 512})
    total = plan(config, SHAPE, None).total_bytes
    found = planned("dpo", config, SHAPE, device_bytes=2 * total)
    assert found.plan is not None
    assert sum(part.term.bytes for part in found.parts) == total
    ends = [part.x + part.width for part in found.parts]
    assert [part.x for part in found.parts] == [0, *ends[:-1]]
    assert ends[-1] == WIDTH // 2
    assert (found.device_end, found.spare_bytes) == (None, total)
    half = planned("dpo", config, SHAPE, device_bytes=total // 2)
    assert half.device_end == WIDTH * (total // 2) // total
    assert half.parts[-1].x + half.parts[-1].width == WIDTH


@pytest.mark.django_db
def test_a_base_that_is_elsewhere_is_not_looked_up(people: People) -> None:
    base = make_version(people.workspace)
    ModelVersion.objects.filter(pk=base.pk).update(base={**base.base, "source": "org/model"})
    base.refresh_from_db()
    with pytest.raises(BaseModelError, match=r"org/model is not on this machine.*config\.json"):
        version_shape(base)


def form(**more: Any) -> dict[str, Any]:
    return {"method": "dpo", "device": "cpu-8", **more}


@pytest.mark.django_db
def test_the_page_plans_and_says_what_makes_it_fit(people: People, client: Client) -> None:
    client.force_login(people.rita)
    client.get("/plan/")
    base = ModelVersion.objects.get(workspace=people.workspace)
    asked = form(version=base.pk, settings='{"row_budget": 512}', rows=80)
    page = client.post("/plan/", asked)
    assert page.status_code == 200
    assert "✓ fits" in page.content.decode()
    assert "quantization constants" in page.content.decode()
    page = client.post("/plan/", asked | {"device_gb": "1.5"}).content.decode()
    assert "✕ does not fit" in page
    assert "It fits with <code>gradient_checkpointing = true</code>" in page
    assert "Slower; the result is the same." in page
    assert "No setting makes it fit" not in page
    page = client.post("/plan/", asked | {"device_gb": "0.3"}).content.decode()
    assert "✕ does not fit" in page
    assert "No setting makes it fit" in page
    assert "It fits with" not in page


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({}, "Choose a model, or paste"),
        ({"base_config": "{"}, "This is not JSON"),
        ({"base_config": "[1]"}, "An object was expected"),
        ({"base_config": '{"model_type": "mamba"}'}, "model_type is"),
        ({"version": "base", "settings": '{"row_bugdet": 1}'}, "row_bugdet"),
        ({"version": "base", "device_gb": "-1"}, "greater than or equal"),
    ],
)
def test_what_cannot_be_planned_is_told(
    wrong: dict[str, Any], sentence: str, people: People, client: Client
) -> None:
    client.force_login(people.rita)
    client.get("/plan/")
    if "version" in wrong:
        wrong = wrong | {"version": ModelVersion.objects.get(workspace=people.workspace).pk}
    page = client.post("/plan/", form(**wrong))
    assert page.status_code == 422
    assert sentence in page.content.decode()


@pytest.mark.django_db
def test_the_launch_form_shows_every_stage(world: World, client: Client) -> None:
    client.force_login(world.people.rita)
    asked = {
        "snapshot": world.snapshot.pk, "method": "ppo", "reference": world.base.pk,
        "fresh_prompts": world.prompt_set.pk, "config": "{}", "plan_device": "gpu-24",
    }  # fmt: skip
    page = client.post("/rounds/plan", asked).content.decode()
    for stage in ("Reward", "Policy", "Evaluate", "Sample policy"):
        assert f"<h3>{stage}</h3>" in page
    assert page.count("✓ fits") == 5
    assert "KV cache" in page
    page = client.post("/rounds/plan", asked | {"config": '{"policy": {"lr": 1}}'}).content.decode()
    assert "Not planned: policy: " in page


@pytest.mark.django_db
def test_a_base_that_is_elsewhere_is_planned_by_its_pasted_config(
    world: World, client: Client
) -> None:
    client.force_login(world.people.rita)
    base = {**world.base.base, "source": "org/model"}
    ModelVersion.objects.filter(pk=world.base.pk).update(base=base)
    asked = {
        "snapshot": world.snapshot.pk, "method": "dpo", "reference": world.base.pk,
        "fresh_prompts": world.prompt_set.pk, "config": "{}", "plan_device": "gpu-24",
    }  # fmt: skip
    page = client.post("/rounds/plan", asked).content.decode()
    assert "org/model is not on this machine" in page
    page = client.post("/rounds/plan", asked | {"plan_base_config": json.dumps(DEMO)})
    assert page.content.decode().count("✓ fits") == 5
    page = client.post("/rounds/plan", asked | {"plan_base_config": "{"}).content.decode()
    assert "config.json: This is not JSON" in page
    assert 'name="plan_base_config"' in client.get("/rounds/").content.decode()


@pytest.mark.django_db
def test_the_api_plans_a_config_and_a_method(world: World) -> None:
    config = {"method": "dpo", "base": {"source": "demo", "quantization": "nf4"}}
    reply = world.rita.post("/plan", {"config": config, "device": "cpu", "device_gb": 16})
    assert reply.status_code == 200
    assert reply.json()["fits"] is True
    terms = reply.json()["terms"]
    assert sum(term["bytes"] for term in terms) == reply.json()["total_bytes"]
    by_method = {"method": "dpo", "version": world.base.pk, "rows": 100, "tflops": 1}
    assert world.rita.post("/plan", by_method).json()["time"]["seconds"] > 0


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "config"),
        ({"method": "dpo", "version": 999}, "version"),
        ({"config": {"method": "dpo", "base": {"source": "/etc"}}}, "base_config"),
        ({"config": {"method": "none"}}, "config"),
        ({"method": "dpo", "base_config": {"model_type": "llama"}}, "base_config"),
        ({"method": "dpo", "base_config": {**DEMO, "hidden_size": 10**18}}, "base_config"),
    ],
)
def test_the_api_names_the_field_that_is_wrong(
    body: dict[str, Any], field: str, world: World
) -> None:
    reply = world.rita.post("/plan", body)
    assert reply.status_code == 422
    assert [problem["field"] for problem in reply.json()["errors"]] == [field]
