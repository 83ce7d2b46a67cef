"""The whole circle on a tiny random model: import → judge → snapshot → round → new comparisons."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
from django.test import Client

from annotate.models import Answer, Comparison, Judgment
from annotate.services.freezing import freeze_snapshot
from annotate.services.ingest import import_comparisons, store_prompt_set
from annotate.services.projects import create_project
from tests.engine.tiny import save_tiny, user
from tests.people import make_people
from training.models import Job, ModelVersion, Round, Run
from training.selectors.lineage import version_lineage, versions_taught_by
from training.services import queueing
from training.services.executing import execute_run
from training.services.launching import launch_round
from training.services.promoting import promote_round
from training.services.versions import base_version

SMALL = {"optim": {"batch_size": 4, "max_steps": 2}}
SHORT = {"sample": {"max_new_tokens": 6}}


def work_off_the_queue() -> None:
    """What the worker's device loop does, until nothing waits."""
    while (claim := queueing.claim_next(queues=["training", "sampling"])) is not None:
        execute_run(claim=claim, stopping=threading.Event())


def judge_over_http(client: Client, project: str, choice: str, key: str) -> None:
    page = client.get(f"/judge/{project}/").content.decode()
    assignment = re.search(r'name="assignment" value="(\d+)"', page)
    assert assignment, "the screen shows a comparison"
    sent = {"assignment": assignment[1], "answer": choice, "key": key, "active_ms": "900"}
    reply = client.post(f"/judge/{project}/answer", sent)
    assert reply.status_code == 302


@pytest.mark.django_db(transaction=True)
def test_a_click_becomes_a_weight_becomes_new_comparisons(tmp_path: Path, client: Client) -> None:
    people = make_people()
    base = save_tiny(tmp_path / "tiny")
    project = create_project(workspace=people.workspace, name="Loop", slug="loop")
    rows = [
        {"prompt": f"Question {n}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(24)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    import_comparisons(project=project, path=file)
    fresh = store_prompt_set(
        workspace=people.workspace,
        conversations=[user(f"Fresh {n}?") for n in range(3)],
        name="fresh",
        use="fresh",
    )
    snapshot = freeze_snapshot(project=project, test_fraction=0.25)

    # A round by DPO, then one by PPO with the same reward model.
    asked = {
        "project": project,
        "snapshot": snapshot,
        "reference": base_version(
            workspace=people.workspace, source=str(base), quantization="none"
        ),
        "fresh_prompts": fresh,
    }
    first = launch_round(
        method="dpo",
        config={
            "reward": SMALL,
            "policy": SMALL,
            "sample": SHORT,
            "evaluate": {"evaluate": {"generate": 2, "max_new_tokens": 4}},
        },
        **asked,
    )
    work_off_the_queue()
    first.refresh_from_db()
    assert first.state == Round.State.AWAITING_VERDICT, first.reason
    assert [run.stage for run in first.runs.order_by("pk")] == [
        "reward", "policy", "evaluate", "sample_policy", "sample_reference",
    ]  # fmt: skip
    evaluation = Run.objects.get(round=first, stage="evaluate").result
    assert evaluation is not None
    assert 0.0 <= evaluation["metrics"]["reward/accuracy"] <= 1.0
    # Whoever chose in the import is one annotator, so there are buckets and no ceiling.
    found = evaluation["evaluation"]["reward"]
    (told,) = found["by_annotator"]
    assert re.fullmatch("[0-9a-f]{12}", told)
    assert found["by_agreement"]["judged by one"]["n"] == snapshot.n_test
    assert found["human"]["inter_annotator"] is None

    second = launch_round(
        method="ppo",
        reward_version=first.reward_version,
        config={
            "policy": {
                "ppo": {
                    "updates": 2,
                    "episodes_per_update": 4,
                    "max_new_tokens": 4,
                    "eval_prompts": 4,
                }
            },
            "sample": SHORT,
        },
        **asked,
    )
    work_off_the_queue()
    second.refresh_from_db()
    assert second.state == Round.State.AWAITING_VERDICT, second.reason
    assert not second.runs.filter(stage="reward").exists()

    # The new policy's answers are in the queue, blind, and a person judges one.
    opened = Comparison.objects.filter(project=project, origin_reference=f"round:{first.pk}")
    assert opened.filter(slots=1).count() >= 3
    client.force_login(people.bob)
    judge_over_http(client, "loop", "left", "key-1")
    judgment = Judgment.objects.get(annotator__user=people.bob)
    assert judgment.answer in (Answer.A, Answer.B)
    assert judgment.active_ms == 900

    # Lineage, both ways.
    version = promote_round(round=first)
    assert version.state == ModelVersion.State.PROMOTED
    assert version_lineage(version).judgments == snapshot.n_train + snapshot.n_test
    taught = Judgment.objects.filter(preferences__snapshot_rows__snapshot=snapshot).first()
    assert taught is not None
    assert version in versions_taught_by(taught)
    assert not Job.objects.exclude(state=Job.State.SUCCEEDED).exists()

    # Curves came through the events, once each.
    run = Run.objects.get(round=first, stage="policy")
    assert run.metrics.filter(name="dpo/margin").count() == 2

    # The researcher's pages show it.
    client.force_login(people.rita)
    for address in ("/rounds/", f"/rounds/{first.pk}/", "/models/", f"/models/{version.pk}/"):
        assert client.get(address).status_code == 200, address
