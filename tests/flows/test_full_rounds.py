"""A round that trains every weight, by real runs on a tiny model: SFT, then DPO, then further."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from safetensors.torch import load_file

from annotate.models import Comparison
from annotate.services.freezing import freeze_snapshot
from annotate.services.ingest import import_comparisons, store_prompt_set
from annotate.services.projects import create_project
from tests.engine.tiny import save_tiny, user
from tests.flows.test_the_loop import work_off_the_queue
from tests.people import make_people
from training.models import ModelVersion, Round, Run
from training.selectors.lineage import version_lineage
from training.services import queueing
from training.services.executing import execute_run
from training.services.launching import launch_round
from training.services.promoting import promote_round
from training.services.versions import base_version

FEW = {"optim": {"batch_size": 4, "max_steps": 2, "lr": 1e-3}}
FULL = {"tuning": "full", "policy": FEW, "sample": {"sample": {"max_new_tokens": 6}}}


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


def changed(before: Path, after: Path) -> set[str]:
    """Names of the tensors that differ."""
    old, new = weights(before), weights(after)
    assert old.keys() == new.keys()
    return {name for name in old if not old[name].equal(new[name])}


def folder_of(version: ModelVersion) -> Path:
    assert version.model_path
    assert not version.adapter_path
    return Path(settings.RUNS_DIR) / version.model_path


@pytest.mark.django_db(transaction=True)
def test_every_weight_is_trained_sampled_and_trained_further(tmp_path: Path) -> None:
    people = make_people()
    base = save_tiny(tmp_path / "tiny")
    project = create_project(workspace=people.workspace, name="Full", slug="full")
    rows = [
        {"prompt": f"Question {n}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(12)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    import_comparisons(project=project, path=file)
    snapshot = freeze_snapshot(project=project, test_fraction=0.25)
    asked = {
        "project": project,
        "snapshot": snapshot,
        "fresh_prompts": store_prompt_set(
            workspace=people.workspace,
            conversations=[user("Fresh one?"), user("Fresh two?")],
            name="fresh",
            use="fresh",
        ),
    }
    start = base_version(workspace=people.workspace, source=str(base), quantization="none")

    first = launch_round(method="dpo", config={**FULL, "sft": FEW}, reference=start, **asked)
    work_off_the_queue()
    first.refresh_from_db()
    assert first.state == Round.State.AWAITING_VERDICT, first.reason
    stages = [run.stage for run in first.runs.order_by("pk")]
    assert stages == ["sft", "policy", "sample_policy", "sample_reference"]

    # DPO began at what SFT had made: both, and each of their weights, are there, whole
    tuned, made = ModelVersion.objects.get(kind="sft"), first.policy_version
    assert made is not None
    everything = set(weights(folder_of(made)))
    assert changed(base, folder_of(tuned)) == everything
    assert changed(folder_of(tuned), folder_of(made)) == everything
    policy = first.runs.get(stage="policy")
    assert policy.config["base"]["source"] == str(folder_of(tuned))
    # which was its reference too: the first loss is ln 2
    assert policy.metrics.get(name="loss/train", step=1).value == pytest.approx(math.log(2), 1e-4)

    # its answers wait to be judged, beside those of what the round began with
    opened = Comparison.objects.filter(project=project, origin_reference=f"round:{first.pk}")
    assert opened.exists()
    sources = {
        run.stage: run.config["base"]["source"]
        for run in first.runs.filter(stage__startswith="sample_")
    }
    assert sources["sample_policy"] == str(folder_of(made))

    # promoted, it is what a further round begins with, as any base
    version = promote_round(round=first)
    assert version_lineage(version).judgments == snapshot.n_train + snapshot.n_test
    second = launch_round(method="sft", config=FULL, reference=version, **asked)
    claim = queueing.claim_next(queues=["training"])
    assert claim is not None
    execute_run(claim=claim, stopping=threading.Event())
    second.refresh_from_db()
    assert second.state == Round.State.SAMPLING, second.reason
    run = Run.objects.get(round=second, stage="policy")
    assert run.config["base"]["source"] == str(folder_of(version))
    further = second.policy_version
    assert further is not None
    assert changed(folder_of(version), folder_of(further)) == everything
