"""The pages that say which way to go and launch one method, and the advice in the API."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client

from tests.api.world import Caller, caller
from tests.people import People
from tests.training.rows import make_version
from training.engine.advisor_presets import ENCODER
from training.engine.packaged import PACKAGED
from training.models import Job, ModelVersion, Run, TextSet
from training.selectors.advice import planned_settings_of, settings_of, tuning_of
from training.services.text_sets import import_text_set
from training.services.versions import named_base

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
    _, (launch, _), _ = page.context["steps"][0]
    asked = parse_qs(urlsplit(launch).query)
    assert asked["method"] == ["sft"]
    assert asked["tuning"] == ["lora"]
    # The link fills the launch form in.
    form = rita.get(launch).context["form"]
    assert form["method"].value() == "sft"
    assert form["settings"].value() == asked["settings"][0]


def case_of(rita: Client, **case: Any) -> list[Any]:
    page = rita.post("/advise/", CASE | case)
    assert page.status_code == 200, page.context["form"].errors
    steps: list[Any] = page.context["steps"]
    return steps


def test_a_preset_that_fits_in_16_bits_is_launched_and_planned_in_them(
    rita: Client, people: People
) -> None:
    step, (launch, _), plan = case_of(rita, labelled_examples=800, device_gb="1.2")[0]
    assert (step.stage.fits, step.stage.config["base"]["dtype"]) == (True, "bfloat16")
    form = rita.get(launch).context["form"]
    assert json.loads(form["settings"].value())["base"] == {"dtype": "bfloat16"}
    page = rita.post("/plan/", plan)
    assert page.status_code == 200
    (planned,) = page.context["plans"]
    assert planned.plan.total_bytes == step.stage.total_bytes
    assert (planned.plan.device_bytes, planned.plan.fits) == (1_200_000_000, True)
    assert page.context["form"]["settings"].value() == plan["settings"]


def test_the_encoder_of_a_preset_is_what_is_launched(rita: Client, people: People) -> None:
    case = {"task": "classification", "labelled_examples": 5000, "device_gb": 8}
    step, (launch, _), plan = case_of(rita, **case)[0]
    assert step.base == ENCODER
    form = rita.get(launch).context["form"]
    assert (form["base"].value(), form["version"].value()) == (ENCODER, None)
    page = rita.post("/plan/", plan)
    assert page.context["plans"][0].plan.total_bytes == step.stage.total_bytes
    # Once the workspace has it, the preset starts from that version.
    made = named_base(workspace=people.workspace, source=ENCODER)
    step, (launch, _), _ = case_of(rita, **case)[0]
    assert (step.version, parse_qs(urlsplit(launch).query)["version"]) == (made, [str(made.pk)])


def test_a_packaged_encoder_is_advised_on_by_its_name(rita: Client) -> None:
    case = {"task": "classification", "labelled_examples": 60, "base": "minilm"}
    step, (launch, _), plan = case_of(rita, **case)[0]
    assert (step.tuning, step.base, plan["base"]) == ("lora", "minilm", "minilm")
    assert json.loads(step.settings)["adapter"]["target_modules"] == ["query", "value"]
    assert rita.get(launch).context["form"]["base"].value() == "minilm"
    assert rita.post("/plan/", plan).context["plans"][0].plan.total_bytes == step.stage.total_bytes


def test_the_second_step_starts_from_what_the_first_one_made(
    rita: Client, people: People, texts: TextSet
) -> None:
    case = {
        "task": "knowledge", "labelled_examples": 2000, "raw_tokens": 10**9,
        "domain_distance": "very_different", "knowledge_changes": "never",
    }  # fmt: skip
    (first, (launch, _), _), (second, (then, _), plan) = case_of(rita, **case)
    assert (first.stage.method, first.after, second.after) == ("pretrain", "", "pretrain")
    assert rita.post("/plan/", plan).context["plans"][0].plan.method == "sft"
    base = ModelVersion.objects.get(workspace=people.workspace)
    page = rita.get(then)
    assert page.context["form"]["version"].value() is None
    assert "what a run of Continued pretraining makes" in page.content.decode()
    form = rita.get(launch).context["form"]
    sent = {name: form[name].value() or "" for name in form.fields} | {"text_set": texts.pk}
    assert rita.post("/runs/new/", sent).status_code == 302
    run = Run.objects.get()
    assert run.config["base"]["dtype"] == "bfloat16"
    made = make_version(people.workspace, "read on", kind="pretrained", parent=base, run=run)
    page = rita.get(then)
    assert page.context["form"]["version"].value() == made.pk
    assert "there is none yet" not in page.content.decode()


def test_any_base_is_planned_by_its_config(rita: Client) -> None:
    config = {**PACKAGED["demo"].config, "_name_or_path": "org/model", "num_hidden_layers": 60}
    case = {"labelled_examples": 800, "base_config": json.dumps(config), "example_tokens": 64}
    step, (launch, _), plan = case_of(rita, **case)[0]
    assert step.stage.total_bytes > 0
    assert parse_qs(urlsplit(launch).query)["base"] == ["org/model"]
    assert json.loads(plan["base_config"]) == config
    page = rita.post("/advise/", CASE | case | {"base_config": "{"})
    assert "not JSON" in page.content.decode()
    # Without a name nothing can be launched, which is said.
    nameless = {name: value for name, value in config.items() if name[0] != "_"}
    step, (launch, words), _ = case_of(rita, **case | {"base_config": json.dumps(nameless)})[0]
    assert (launch, words[:22]) == ("", "register its base firs")


def test_what_stays_in_the_house_needs_a_model_in_it(rita: Client) -> None:
    page = rita.post("/advise/", CASE | {"private": "true", "model_in_house": "false"})
    assert "take an open model" in page.content.decode()


def test_preferences_are_launched_in_a_round(rita: Client) -> None:
    page = rita.post("/advise/", CASE | {"task": "preference", "preference_pairs": 3000})
    assert "First: preference tuning with DPO" in page.content.decode()
    assert page.context["steps"][-1][1] == ("/rounds/", "Launch a round")


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
    base = {"source": "demo", "dtype": "bfloat16", "quantization": "nf4"}
    config: dict[str, Any] = {
        "method": "sft", "threads": 2, "base": base, "row_budget": 512,
        "adapter": {"r": 8, "init_from": "pretrain/adapter"},
    }  # fmt: skip
    # What fits in bf16 is launched in bf16; the source is the version's, nf4 the tuning's.
    launched: dict[str, Any] = {
        "base": {"dtype": "bfloat16"}, "row_budget": 512, "adapter": {"r": 8},
    }  # fmt: skip
    assert json.loads(settings_of(config)) == launched
    launched["base"]["quantization"] = "nf4"
    assert json.loads(planned_settings_of(config)) == launched | {"threads": 2}
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
