"""Rounds whose policy is trained through TRL: launched by service, form and API, stage by stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from tests.api.world import World
from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_prompt_set, make_snapshot
from training.engine.config import ONLINE_METHODS, TRL_METHODS
from training.errors import CannotLaunch
from training.export.card import model_card
from training.models import ModelVersion, Round, Run
from training.services import queueing
from training.services.folders import prepare_folder
from training.services.launching import launch_round
from training.services.rounds import run_finished
from training.services.versions import base_version

STAGES = ["reward", "policy", "evaluate", "sample_policy", "sample_reference"]


@pytest.fixture
def asked(people: People) -> dict[str, Any]:
    project = make_project(people.workspace)
    return {
        "project": project,
        "snapshot": make_snapshot(project),
        "reference": base_version(workspace=people.workspace),
        "fresh_prompts": make_prompt_set(people.workspace),
    }


def ended(run: Run) -> None:
    """What a worker leaves when the engine trained: an adapter on the disk, the result in its row.

    Evaluations make no adapter, and samplings no text here.
    """
    adapter = None
    if run.stage in ("reward", "policy"):
        adapter = "attempts/a/adapter"
        folder = Path(settings.RUNS_DIR) / run.folder / adapter
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
        (folder / "adapter_model.safetensors").write_bytes(run.folder.encode())
    run.result = {"status": "done", "adapter": adapter, "metrics": {}, "steps": 1, "seconds": 1.0}
    run.save()
    run.job.state = "succeeded"
    run.job.save()


@pytest.mark.django_db
@pytest.mark.parametrize("method", TRL_METHODS)
def test_the_reward_model_comes_before_the_policy_and_the_rest_after(
    method: str, asked: dict[str, Any], tmp_path: Path, settings: Any
) -> None:
    settings.RUNS_DIR = tmp_path
    launched = launch_round(method=method, **asked)
    assert launched.state == Round.State.TRAINING_REWARD
    for stage, state in (("reward", "training_policy"), ("policy", "evaluating")):
        run = launched.runs.get(stage=stage)
        ended(run)
        run_finished(run=run)
        launched.refresh_from_db()
        assert launched.state == state
    policy = launched.runs.get(stage="policy")
    assert policy.method == method
    section = policy.config[method]
    assert launched.reward_version is not None
    reward = str(tmp_path / launched.reward_version.adapter_path)
    assert section.get("reward_adapter") == (reward if method in ONLINE_METHODS else None)
    evaluation = launched.runs.get(stage="evaluate")
    assert evaluation.config["evaluate"]["reward_adapter"] == reward
    assert launched.policy_version is not None
    assert launched.policy_version.kind == ModelVersion.Kind.POLICY
    assert launched.policy_version.name.endswith(f"round 1 {method.upper()}")
    assert f"({method.upper()})" in model_card(launched.policy_version, "me/model")
    ended(evaluation)
    run_finished(run=evaluation)
    launched.refresh_from_db()
    assert launched.state == Round.State.SAMPLING
    assert [run.stage for run in launched.runs.order_by("pk")] == STAGES[:4]


@pytest.mark.django_db
@pytest.mark.parametrize("method", TRL_METHODS)
def test_its_folder_holds_what_the_method_reads(
    method: str, asked: dict[str, Any], people: People, tmp_path: Path, settings: Any
) -> None:
    settings.RUNS_DIR = tmp_path
    reward = ModelVersion.objects.create(
        workspace=people.workspace, name="r", kind=ModelVersion.Kind.REWARD, digest="ab" * 32,
        base=asked["reference"].base, adapter_path="round-0/reward/adapter",
    )  # fmt: skip
    launched = launch_round(method=method, reward_version=reward, **asked)
    assert launched.state == Round.State.TRAINING_POLICY  # the reward model is there already
    folder = prepare_folder(launched.runs.get())
    files = {path.stem: path for path in (folder / "data").iterdir()}
    assert set(files) == ({"prompts"} if method in ONLINE_METHODS else {"train", "test"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["method"] == method
    if method in ONLINE_METHODS:
        rows = [json.loads(line) for line in files["prompts"].read_text("utf-8").splitlines()]
        assert len(rows) == len({row["id"] for row in rows}) == asked["snapshot"].n_train


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("method", "policy", "words"),
    [
        ("kto", {"optim": {"batch_size": 1}}, "optim.batch_size is 1"),
        ("orpo", {"orpo": {"beta": 0}}, "orpo.beta is 0"),
        ("grpo", {"grpo": {"samples_per_prompt": 1}}, "grpo.samples_per_prompt is 1"),
        ("grpo", {"grpo": {"minibatch_size": 3}}, "a divisor of the 8 answers"),
        ("grpo", {"grpo": {"reward_adapter": "/etc"}}, "reward_adapter is set by the round itself"),
        ("rloo", {"optim": {"max_steps": 2}}, "RLOO has rloo.updates"),
        ("rloo", {"dpo": {"beta": 0.1}}, "method sections"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_a_job_exists(
    method: str, policy: dict[str, Any], words: str, asked: dict[str, Any]
) -> None:
    with pytest.raises(CannotLaunch, match=words):
        launch_round(method=method, config={"policy": policy}, **asked)
    assert queueing.Job.objects.count() == Round.objects.count() == 0


@pytest.mark.django_db
@pytest.mark.parametrize("method", TRL_METHODS)
def test_the_form_explains_and_launches_it(
    method: str, asked: dict[str, Any], people: People, client: Client
) -> None:
    client.force_login(people.rita)
    page = client.get("/rounds/").content.decode()
    assert f'name="method" value="{method}"' in page
    assert f"<strong>{method.upper()}</strong>" in page
    assert f"{method.upper()} {8 if method in ONLINE_METHODS else 1} steps" in page
    sent = {"method": method, "snapshot": asked["snapshot"].pk, "config": ""}
    sent |= {name: asked[name].pk for name in ("reference", "fresh_prompts")}
    reply = client.post("/rounds/", sent)
    made = Round.objects.get()
    assert (reply.status_code, made.method) == (302, method)
    assert made.get_method_display() in client.get(f"/rounds/{made.pk}/").content.decode()


@pytest.mark.parametrize("method", TRL_METHODS)
def test_the_api_launches_it(method: str, world: World) -> None:
    body = {"project": "helpful", "snapshot": world.snapshot.pk, "method": method}
    body |= {"reference": world.base.pk, "fresh_prompts": world.prompt_set.pk}
    reply = world.rita.post("/rounds", body)
    assert reply.status_code == 201, reply.content
    found = reply.json()
    assert (found["method"], found["state"]) == (method, "training_reward")
    listed = world.rita.get("/rounds", method=method).json()["results"]
    assert [row["id"] for row in listed] == [found["id"]]
