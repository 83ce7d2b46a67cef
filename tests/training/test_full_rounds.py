"""Rounds that train every weight: what they leave out, what they make, what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from annotate.errors import HubRefused
from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_prompt_set, make_snapshot, make_version
from training.engine.config import from_dict
from training.errors import CannotLaunch
from training.export.writers import require_trained
from training.models import Job, ModelVersion, Round, Run
from training.selectors.plans import round_plans
from training.services.launching import launch_round, launch_sampling
from training.services.rounds import plan, run_finished
from training.services.versions import base_version

FULL = {"tuning": "full"}


@pytest.fixture
def asked(people: People, tmp_path: Path, settings: Any) -> dict[str, Any]:
    settings.RUNS_DIR = tmp_path
    project = make_project(people.workspace)
    return {
        "project": project,
        "snapshot": make_snapshot(project),
        "reference": base_version(workspace=people.workspace, quantization="none"),
        "fresh_prompts": make_prompt_set(people.workspace),
    }


def trained(run: Run) -> None:
    """What a worker leaves when the engine trained every weight."""
    folder = Path(settings.RUNS_DIR) / run.folder / "attempts/a/model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(run.folder.encode())
    run.result = {"status": "done", "model": "attempts/a/model", "metrics": {}, "steps": 1}
    run.save()
    run.job.state = "succeeded"
    run.job.save()


@pytest.mark.django_db
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_it_trains_registers_and_samples_a_whole_model(
    method: str, asked: dict[str, Any], people: People
) -> None:
    launched = launch_round(method=method, config=FULL, **asked)
    assert plan(launched) == ["policy", "sample_policy", "sample_reference"]
    run = launched.runs.get()
    assert run.config["tuning"] == "full"
    assert from_dict(run.config).adapter.init_from is None
    assert run.config["optim"]["lr"] == 1e-5
    trained(run)
    run_finished(run=run)
    launched.refresh_from_db()
    made = launched.policy_version
    assert made is not None
    assert (made.adapter_path, made.model_path) == ("", f"{run.folder}/attempts/a/model")
    folder = str(Path(settings.RUNS_DIR) / made.model_path)
    assert made.base["source"] == folder
    sampling = launched.runs.get(stage="sample_policy").config
    assert sampling["base"]["source"] == folder
    assert (sampling["tuning"], sampling["adapter"]["init_from"]) == ("lora", None)
    # A round, or a sampling, may go on from it: as from any base.
    given = {"project": asked["project"], "version": made, "prompt_set": asked["fresh_prompts"]}
    assert launch_sampling(**given).config["base"]["source"] == folder
    later = launch_round(method="dpo", **{**asked, "reference": made})
    assert later.runs.get().config["base"]["source"] == folder
    again = launch_round(method="sft", config=FULL, **{**asked, "reference": made})
    assert again.runs.get().config["base"]["source"] == folder
    require_trained(made)
    with pytest.raises(HubRefused, match="is a base"):
        require_trained(asked["reference"])


@pytest.mark.django_db
def test_a_full_dpo_may_follow_a_full_sft(asked: dict[str, Any]) -> None:
    sft = {"optim": {"lr": 3e-6}}
    launched = launch_round(method="dpo", config={**FULL, "sft": sft}, **asked)
    run = launched.runs.get()
    assert run.config["optim"]["lr"] == 3e-6
    assert (run.stage, run.config["tuning"]) == ("sft", "full")
    trained(run)
    run_finished(run=run)
    tuned = ModelVersion.objects.get(kind="sft")
    policy = launched.runs.get(stage="policy").config
    assert (policy["method"], policy["base"]["source"]) == ("dpo", tuned.base["source"])


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("method", "config", "words"),
    [
        *((m, FULL, "is for SFT and DPO") for m in ("kto", "orpo", "ppo", "grpo", "rloo")),
        ("dpo", {"tuning": "half"}, "allowed: lora, full"),
        ("dpo", {**FULL, "adapter": {"r": 8}}, "there is no adapter"),
        ("dpo", {**FULL, "reward": {"row_budget": 64}}, "no reward model"),
        ("dpo", {"policy": {"tuning": "full"}}, "one for the whole round"),
    ],
)
def test_what_cannot_be_is_refused_before_a_job_exists(
    method: str, config: dict[str, Any], words: str, asked: dict[str, Any]
) -> None:
    with pytest.raises(CannotLaunch, match=words):
        launch_round(method=method, config=config, **asked)
    assert Job.objects.count() == Round.objects.count() == 0


@pytest.mark.django_db
def test_it_starts_from_whole_unquantized_weights_alone(
    asked: dict[str, Any], people: People
) -> None:
    four_bits = base_version(workspace=people.workspace, quantization="nf4")
    adapter = make_version(people.workspace, "policy", kind="policy")
    for reference, words in ((four_bits, "no gradient"), (adapter, "is an adapter")):
        with pytest.raises(CannotLaunch, match=words):
            launch_round(method="dpo", config=FULL, **{**asked, "reference": reference})


@pytest.mark.django_db
def test_the_form_offers_it_and_its_plan_needs_more(
    asked: dict[str, Any], people: People, client: Client
) -> None:
    client.force_login(people.rita)
    sent = {"method": "dpo", "snapshot": asked["snapshot"].pk, "config": "", "tuning": "full"}
    sent |= {name: asked[name].pk for name in ("reference", "fresh_prompts")}
    assert client.post("/rounds/", sent).status_code == 302
    made = Round.objects.get()
    assert made.config == FULL
    (policy, *_) = round_plans(made, device="cpu", device_bytes=None)
    adapters = Round(
        **{f: getattr(made, f) for f in ("project", "snapshot", "method", "reference")}
    )
    lora = {each.name: each.plan for each in round_plans(adapters, device="cpu", device_bytes=None)}
    assert policy.plan is not None
    assert lora["policy"] is not None
    # gradients and two moments of every weight, in 4 bytes each
    more = policy.plan.total_bytes - lora["policy"].total_bytes
    assert more >= 12 * policy.plan.parameters
    sent |= {"method": "ppo"}
    assert "is for SFT and DPO" in client.post("/rounds/", sent).content.decode()
