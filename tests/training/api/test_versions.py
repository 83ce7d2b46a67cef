from __future__ import annotations

from typing import Any

import pytest

from tests.api.world import World
from training.export.facts import base_model
from training.models import ModelVersion


def test_a_version_comes_with_its_lineage(world: World) -> None:
    trained = ModelVersion.objects.create(
        workspace=world.people.workspace, project=world.project, kind="policy", name="policy",
        base=world.base.base, parent=world.base, adapter_path="x", digest="policy", run=world.run,
        metrics={"dpo/accuracy": 0.7},
    )  # fmt: skip
    found = world.rita.get(f"/versions/{trained.pk}").json()
    assert (found["parent"], found["run"], found["round"], found["project"]) == (
        world.base.pk, world.run.pk, world.round.pk, "helpful",
    )  # fmt: skip
    assert found["metrics"] == {"dpo/accuracy": 0.7}
    assert found["lineage"] == {
        "run": world.run.pk, "snapshot": world.snapshot.pk, "judgments": 12, "annotators": 1,
        "samples": 0, "comparisons": 0, "answered": 0,
    }  # fmt: skip
    base = world.rita.get(f"/versions/{world.base.pk}").json()
    assert (base["lineage"]["run"], base["lineage"]["snapshot"], base["round"]) == (None,) * 3


def test_lists_are_filtered(world: World) -> None:
    for query, count in (({"kind": "base"}, 1), ({"kind": "reward"}, 0), ({"project": "x"}, 0)):
        assert world.rita.get("/versions", **query).json()["count"] == count
    assert world.rita.get("/versions", kind="x").status_code == 422


def test_a_base_is_registered_once(world: World) -> None:
    body = {"source": "HuggingFaceTB/SmolLM2-360M-Instruct", "quantization": "none"}
    first, again = world.rita.post("/versions", body), world.rita.post("/versions", body)
    assert first.status_code == 201
    assert first.json() == again.json()
    assert world.rita.post("/versions", {"source": "demo"}).json()["id"] == world.base.pk


def test_the_packaged_encoder_is_a_base_that_can_be_registered_and_planned(world: World) -> None:
    asked = {"source": "minilm", "quantization": "none"}
    made = world.rita.post("/versions", asked).json()
    assert made["name"] == "all-MiniLM-L6-v2"
    version = ModelVersion.objects.get(pk=made["id"])
    assert base_model(version).name == "sentence-transformers/all-MiniLM-L6-v2"
    assert not base_model(version).packaged_gguf
    body = {"method": "classify", "version": version.pk, "settings": {"tuning": "full"}}
    terms = world.rita.post("/plan", body).json()["terms"]
    weights = next(term["bytes"] for term in terms if term["name"] == "weights")
    # 22.7 million weights in fp32, and a head of a few classes
    assert weights == pytest.approx(22_713_216 * 4, rel=0.01)


@pytest.mark.parametrize("source", ["/etc", "~/model", "./x", "../x", "a/b/c", "x.gguf", "a b/c"])
def test_nobody_asks_through_the_api_what_lies_on_the_server(source: str, world: World) -> None:
    reply = world.rita.post("/versions", {"source": source})
    assert reply.status_code == 422
    assert reply.json()["type"] == "urn:annotate-and-align:unknown-base"


def test_a_list_costs_the_same_queries_however_long(
    world: World, django_assert_num_queries: Any
) -> None:
    rita = world.rita
    rita.get("/versions")
    for wanted in (1, 8):
        for number in range(ModelVersion.objects.count(), wanted):
            ModelVersion.objects.create(
                workspace=world.people.workspace, kind="base", name="b", base={},
                digest=str(number), project=world.project,
            )  # fmt: skip
        with django_assert_num_queries(3):
            assert rita.get("/versions").json()["count"] == wanted
