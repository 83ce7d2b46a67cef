"""Small makers of training's rows with explicit arguments; they go through the models."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.utils import timezone

from annotate.models import Answer, Project, PromptSet, PromptSetEntry, Snapshot
from annotate.services.freezing import freeze_snapshot
from rlhf_platform.accounts.models import Workspace
from tests.factories import make_annotator, make_comparison, make_judgment, make_prompt
from training.models import (
    Job,
    JobAttempt,
    ModelVersion,
    Round,
    Run,
    RunCheckpoint,
    RunEvent,
    RunMetric,
)

BEGIN = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
BASE = {"source": "demo", "revision": None, "dtype": "float32", "quantization": "nf4"}


def make_snapshot(project: Project, *, pairs: int = 8) -> Snapshot:
    """A snapshot of imported judgments with rows in both splits."""
    teacher = make_annotator(project.workspace, name="teacher")
    for number in range(pairs):
        pair = make_comparison(
            project, prompt=f"Question {number}?", a=f"yes, {number}", b=f"no, not {number}"
        )
        make_judgment(pair, teacher, Answer.A)
    return freeze_snapshot(project=project, test_fraction=0.5)


def make_prompt_set(workspace: Workspace, name: str = "fresh", *, prompts: int = 2) -> PromptSet:
    made = PromptSet.objects.create(workspace=workspace, name=name, use=PromptSet.Use.FRESH)
    for position in range(prompts):
        PromptSetEntry.objects.create(
            prompt_set=made,
            prompt=make_prompt(workspace, f"Fresh {position}?"),
            position=position,
        )
    return made


def make_version(
    workspace: Workspace, name: str = "base", *, kind: str = "base", **fields: object
) -> ModelVersion:
    return ModelVersion.objects.create(
        workspace=workspace,
        name=name,
        kind=kind,
        base=BASE,
        digest=hashlib.sha256(name.encode()).hexdigest(),
        adapter_path="" if kind == "base" else f"round-1/{name}/adapter",
        **fields,
    )


def make_round(
    project: Project, *, snapshot: Snapshot | None = None, state: str = "training_policy"
) -> Round:
    workspace = project.workspace
    base = ModelVersion.objects.filter(workspace=workspace, kind="base").first()
    fresh = PromptSet.objects.filter(workspace=workspace).first()
    return Round.objects.create(
        workspace=workspace,
        project=project,
        number=project.rounds.count() + 1,
        snapshot=snapshot or project.snapshots.first() or make_snapshot(project),
        method=Round.Method.DPO,
        state=state,
        reference=base or make_version(workspace),
        fresh_prompts=fresh or make_prompt_set(workspace),
    )


def make_run(round: Round, *, stage: str = "policy", state: str = "running", **job: object) -> Run:
    """A run of a round and its job in some state."""
    method = {"policy": round.method, "sample_policy": "sample", "sample_reference": "sample"}
    run = Run.objects.create(
        workspace=round.workspace,
        round=round,
        method=method.get(stage, stage),
        stage=stage,
        config={"method": stage, "optim": {"lr": 1e-4}, "adapter": {"init_from": None}},
        folder=f"round-{round.pk}/{stage}-{uuid4().hex[:8]}",
        version=round.reference,
    )
    running = {"token": uuid4(), "lease_until": timezone.now() + timedelta(seconds=30)}
    Job.objects.create(
        workspace=round.workspace,
        kind=Job.Kind.RUN,
        queue=Job.Queue.TRAINING,
        run=run,
        round=round,
        state=state,
        attempts=1,
        **(running if state == "running" else {}),
        **job,
    )
    return run


def make_attempt(job: Job, number: int = 1, **fields: Any) -> JobAttempt:
    """An attempt that was lost, unless the fields say otherwise (`ended_at=None`: at work)."""
    if "ended_at" not in fields:
        fields = {"ended_at": timezone.now(), "outcome": "lost", **fields}
    return JobAttempt.objects.create(job=job, number=number, token=uuid4(), **fields)


def make_checkpoint(run: Run, attempt: JobAttempt, step: int) -> RunCheckpoint:
    """A checkpoint that verifies with its row, as an engine and a forwarder leave them."""
    path = f"attempts/{attempt.token.hex}/checkpoints/step-{step:08d}"
    folder = Path(settings.RUNS_DIR) / run.folder / path
    folder.mkdir(parents=True)
    (folder / "tensors.safetensors").write_bytes(b"weights")
    files = {"tensors.safetensors": hashlib.sha256(b"weights").hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"step": step, "files": files}))
    return RunCheckpoint.objects.create(
        run=run, attempt=attempt.number, step=step, path=path, sha256="ab" * 32, size_bytes=7
    )


def write_attempt_file(run: Run, attempt: JobAttempt, name: str, text: str) -> Path:
    path = Path(settings.RUNS_DIR) / run.folder / "attempts" / attempt.token.hex / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def make_event(run: Run, seq: int, kind: str, *, attempt: int = 1, **body: object) -> RunEvent:
    """An event, ten seconds after the one before it."""
    return RunEvent.objects.create(
        run=run, attempt=attempt, seq=seq, kind=kind, body=body,
        at=BEGIN + timedelta(seconds=10 * seq),
    )  # fmt: skip


def make_curve(run: Run, name: str, *values: float) -> None:
    for step, value in enumerate(values, start=1):
        RunMetric.objects.create(run=run, name=name, step=step, value=value, attempt=1)
