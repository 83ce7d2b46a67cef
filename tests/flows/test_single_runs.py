"""Every method that runs outside a round, worked off by the real engine on a tiny base."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from annotate.services.freezing import freeze_snapshot
from tests.engine.tiny import save_tiny
from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_snapshot
from tests.training.test_launching_runs import QUICK, make_labelled, make_quiz, make_text_set
from training.models import Job, ModelVersion, Run
from training.services import queueing
from training.services.executing import execute_run
from training.services.launching_runs import launch_run
from training.services.versions import base_version


def work_off_the_queue() -> None:
    while (claim := queueing.claim_next(queues=["training", "sampling"])) is not None:
        execute_run(claim=claim, stopping=threading.Event())


def done(run: Run) -> Run:
    work_off_the_queue()
    run.refresh_from_db()
    assert run.job.state == Job.State.SUCCEEDED, run.job.detail
    return run


@pytest.mark.django_db(transaction=True)
def test_each_method_runs_and_registers_what_it_made(people: People, tmp_path: Path) -> None:
    workspace = people.workspace
    base = base_version(
        workspace=workspace, source=str(save_tiny(tmp_path / "tiny")), quantization="none"
    )
    law = make_text_set(workspace)

    def launch(method: str, **asked: Any) -> Run:
        asked = {"version": base, "config": QUICK, **asked}
        return done(launch_run(workspace=workspace, method=method, **asked))

    read = launch("pretrain", text_set=law)
    assert read.output is not None
    assert (read.output.kind, read.output.parent) == (ModelVersion.Kind.PRETRAINED, base)
    assert "pretrain/domain_perplexity_after" in read.output.metrics

    labelled = freeze_snapshot(project=make_labelled(people, tmp_path), test_fraction=0.3)
    sorter = launch("classify", snapshot=labelled)
    assert sorter.output is not None
    assert (sorter.output.kind, sorter.output.project) == ("classifier", labelled.project)
    assert sorter.result is not None
    assert sorter.result["classification"]["labels"] == ["ham", "spam"]

    compared = make_snapshot(make_project(workspace))
    tuned = launch("sft", snapshot=compared, version=read.output)
    assert tuned.output is not None
    assert tuned.output.parent == read.output
    assert tuned.config["adapter"]["init_from"]

    quiz = make_quiz(workspace)
    short = {"answer": {"max_new_tokens": 2}}
    said = launch("answer", text_set=quiz, documents=law, version=tuned.output, config=short)
    assert said.result is not None
    assert said.config["answer"]["adapter"]
    # The documents are the questions' own, so the right one is found among the three looked for.
    assert said.result["metrics"]["answer/recall"] > 0
    assert said.result["answer"]["retrieval"]["questions_with_documents"] == 4

    tries = {**short, "approaches": ["prompting", "rag"]}
    table = launch("compare", text_set=quiz, documents=law, config={"compare": tries})
    assert table.output is None
    assert table.result is not None
    assert [row["status"] for row in table.result["comparison"]["rows"]] == ["done", "done"]

    measured = launch("evaluate", snapshot=compared, version=tuned.output, config={})
    assert measured.output is None
    assert measured.result is not None
    assert "policy" in measured.result["evaluation"]

    # A whole model is a base of its own: the next run starts from its folder.
    whole = launch("pretrain", text_set=law, tuning="full")
    assert whole.output is not None
    assert (whole.output.adapter_path, whole.output.kind) == ("", ModelVersion.Kind.PRETRAINED)
    after = launch("sft", snapshot=compared, version=whole.output)
    assert after.config["base"]["source"].endswith("/model")
    assert after.config["adapter"]["init_from"] is None
