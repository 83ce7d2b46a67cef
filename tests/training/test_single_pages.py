"""The pages that say which way to go and launch one method, and the advice in the API."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client

from tests.api.world import Caller, caller
from tests.people import People
from training.models import Job, ModelVersion, Run, TextSet
from training.services.text_sets import import_text_set
from training.single_forms import settings_of, tuning_of

pytestmark = pytest.mark.django_db
CASE = {"task": "style", "device": "gpu", "private": "unknown"}


@pytest.fixture
def rita(people: People, client: Client) -> Client:
    client.force_login(people.rita)
    client.get("/runs/new/")  # the workspace's base is there from now on
    return client


@pytest.fixture
def texts(people: People, tmp_path: Any) -> TextSet:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(f'{{"text": "Document {n} says something."}}\n' for n in range(20)))
    found = import_text_set(workspace=people.workspace, name="docs", path=path)
    return found if isinstance(found, TextSet) else TextSet.objects.get()


def test_a_case_is_advised_with_reasons_and_what_would_change_it(rita: Client) -> None:
    page = rita.post("/advise/", CASE | {"labelled_examples": 800, "consistent_format": "strict"})
    assert page.status_code == 200
    text = page.content.decode()
    assert "First: fine-tuning with LoRA" in text
    assert "What would change this" in text
    launch = next(step.launch for step in page.context["steps"])
    asked = parse_qs(urlsplit(launch).query)
    assert asked["method"] == ["sft"]
    assert asked["tuning"] == ["lora"]
    # The link fills the launch form in.
    form = rita.get(launch).context["form"]
    assert form["method"].value() == "sft"
    assert form["settings"].value() == asked["settings"][0]


def test_preferences_are_launched_in_a_round(rita: Client) -> None:
    page = rita.post("/advise/", CASE | {"task": "preference", "preference_pairs": 3000})
    assert "First: preference tuning with DPO" in page.content.decode()
    assert {step.launch for step in page.context["steps"] if step.stage.method == "dpo"} == {
        "/rounds/"
    }


def test_what_makes_no_case_is_said(rita: Client) -> None:
    for wrong in ({"task": "dancing"}, {"task": "style", "labelled_examples": -1, "device": "gpu"}):
        assert rita.post("/advise/", wrong).status_code == 422
    assert "Nothing" not in rita.get("/advise/").content.decode()


def test_one_method_is_launched_once(rita: Client, people: People, texts: TextSet) -> None:
    base = ModelVersion.objects.get(workspace=people.workspace)
    sent = {
        "method": "pretrain", "version": base.pk, "text_set": texts.pk, "tuning": "qlora",
        "settings": '{"optim": {"max_steps": 2}}', "launch_key": "once",
    }  # fmt: skip
    first, second = (rita.post("/runs/new/", sent) for _ in range(2))
    run = Run.objects.get()
    assert first.headers["Location"] == second.headers["Location"] == f"/runs/{run.pk}/"
    assert run.config["base"]["quantization"] == "nf4"
    assert run.config["optim"]["max_steps"] == 2
    assert Job.objects.filter(run=run, state="queued").count() == 1
    assert rita.get(f"/runs/{run.pk}/").status_code == 200


def test_a_refused_launch_says_why_in_the_form(rita: Client, people: People) -> None:
    base = ModelVersion.objects.get(workspace=people.workspace)
    sent = {"method": "pretrain", "version": base.pk, "tuning": "lora", "launch_key": "k"}
    page = rita.post("/runs/new/", sent)
    assert page.status_code == 422
    assert "text set" in page.content.decode()
    page = rita.post("/runs/new/", sent | {"settings": "{"})
    assert "not JSON" in page.content.decode()
    assert not Run.objects.exists()


def test_an_annotator_and_another_workspace_launch_nothing_here(
    client: Client, people: People, texts: TextSet
) -> None:
    client.force_login(people.bob)
    for place in ("/runs/new/", "/advise/"):
        assert client.get(place).status_code == 403
    client.force_login(people.charlie)
    assert "docs" not in client.get("/runs/new/").content.decode()


def test_a_preset_becomes_settings() -> None:
    config = {
        "method": "sft", "threads": 2, "base": {"source": "demo", "quantization": "nf4"},
        "adapter": {"r": 8, "init_from": "pretrain/adapter"}, "row_budget": 512,
    }  # fmt: skip
    assert settings_of(config) == '{"adapter": {"r": 8}, "row_budget": 512}'
    assert [tuning_of(each) for each in (config, {}, {"tuning": "full"})] == [
        "qlora", "lora", "full",
    ]  # fmt: skip


def test_advice_by_the_api(people: People) -> None:
    rita: Caller = caller(people.rita, people.workspace)
    reply = rita.post("/advice", {"case": {"task": "style", "labelled_examples": 800}})
    assert reply.status_code == 200
    found = reply.json()
    assert found["first"] in {option["name"] for option in found["options"]}
    assert found["options"][0]["reasons"]
    wrong = rita.post("/advice", {"case": {"task": "style", "colour": "red"}})
    assert wrong.status_code == 422
    assert "colour" in str(wrong.json())
