"""The card of a PPO policy whose round was evaluated: each fact from the row that knows it."""

from __future__ import annotations

import pytest
import yaml

from annotate.models import Snapshot
from annotate.services.ingest import store_prompt_set
from tests.annotate.export.snapshots import real_snapshot
from tests.engine.tiny import user
from tests.people import People
from training.export.card import model_card
from training.export.facts import lineage, measures
from training.models import ModelVersion, Round, Run
from training.services.versions import base_version

pytestmark = pytest.mark.django_db


@pytest.fixture
def snapshot(people: People) -> Snapshot:
    return real_snapshot(people.workspace, "hh-helpful")


@pytest.fixture
def policy(snapshot: Snapshot) -> ModelVersion:
    place = {"workspace": snapshot.workspace, "project": snapshot.project}
    base = base_version(workspace=snapshot.workspace, source="some-lab/some-base")
    reward = ModelVersion.objects.create(
        kind="reward", name="the judge", base=base.base, adapter_path="r", digest="e" * 64, **place
    )
    fresh = store_prompt_set(
        workspace=snapshot.workspace, conversations=[user("Fresh?")], name="fresh", use="fresh"
    )
    round = Round.objects.create(
        number=4,
        snapshot=snapshot,
        method="ppo",
        reference=base,
        reward_version=reward,
        fresh_prompts=fresh,
        **place,
    )
    shared = {"workspace": snapshot.workspace, "round": round, "version": base}
    ppo = {"kl_coef": 0.05, "reward_adapter": "/home/someone/runs/reward/adapter"}
    run = Run.objects.create(
        method="ppo",
        folder="ppo",
        config={"method": "ppo", "seed": 1, "ppo": ppo, "optim": {"lr": 1e-4}},
        result={"steps": 8, "metrics": {"reward/mean_after": 0.2}},
        **shared,
    )
    made = ModelVersion.objects.create(
        kind="policy",
        name="the policy",
        base=base.base,
        parent=base,
        run=run,
        adapter_path="p",
        digest="f" * 64,
        metrics={"reward/mean_after": 0.2},
        **place,
    )
    Run.objects.create(
        method="evaluate",
        folder="evaluate",
        config={"method": "evaluate"},
        result={
            "rows": 57,
            "metrics": {
                "dpo/accuracy_after": 0.61,
                "dpo/accuracy_after_low": 0.5,
                "dpo/accuracy_after_high": 0.72,
                "kl/policy": 1.5,
            },
        },
        **shared,
    )
    round.policy_version = made
    round.save()
    return made


def test_measures_carry_their_interval_and_n_from_where_they_were_taken(
    policy: ModelVersion,
) -> None:
    found = {measure.name: measure for measure in measures(policy)}
    accuracy = found["dpo/accuracy_after"]
    assert (accuracy.value, accuracy.low, accuracy.high, accuracy.n) == (0.61, 0.5, 0.72, 57)
    assert accuracy.source == "evaluation"
    assert (found["kl/policy"].low, found["kl/policy"].n) == (None, None)
    assert found["reward/mean_after"].source == "training run"
    card = model_card(policy, "lab/policy")
    assert "| `dpo/accuracy_after` | 0.61 | 0.500 to 0.720 | 57 | evaluation |" in card


def test_the_line_leads_from_snapshot_over_reward_model_to_policy(
    policy: ModelVersion, snapshot: Snapshot
) -> None:
    card = model_card(policy, "lab/policy")
    steps = card[card.index("## Where it comes from") :]
    places = [steps.index(part) for part in (snapshot.sha256, "e" * 64, "f" * 64)]
    assert places == sorted(places)
    assert "reward model (maximised): the judge" in steps
    told = lineage(policy)
    assert told["reward_model"] == {"name": "the judge", "kind": "reward", "sha256": "e" * 64}
    assert told["snapshot"]["n_train"] == snapshot.n_train


def test_settings_are_told_and_paths_are_not(policy: ModelVersion) -> None:
    card = model_card(policy, "lab/policy")
    assert "| `ppo.kl_coef` | 0.05 |" in card
    assert "/home/someone" not in card + str(lineage(policy))


def test_a_base_on_the_hub_is_named_and_the_licence_is_not_guessed(policy: ModelVersion) -> None:
    head = yaml.safe_load(model_card(policy, "lab/policy").split("---")[1])
    assert head["base_model"] == "some-lab/some-base"
    assert head["license"] == "unknown"
    assert head["tags"] == ["lora", "human-feedback", "rlhf", "ppo"]
    assert head["pipeline_tag"] == "text-generation"


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("candidate", "No person has given a verdict"),
        ("promoted", "A person promoted this version"),
        ("rejected", "A person looked at this version and REJECTED it"),
    ],
)
def test_the_verdict_is_told(policy: ModelVersion, state: str, says: str) -> None:
    policy.state = state
    assert says in model_card(policy, "lab/policy")
