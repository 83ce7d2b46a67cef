"""Small makers of training's rows with explicit arguments; they go through the models."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from django.utils import timezone

from annotate.models import Answer, Project, PromptSet, PromptSetEntry, Snapshot
from annotate.services.freezing import freeze_snapshot
from rlhf_platform.accounts.models import Workspace
from tests.factories import make_annotator, make_comparison, make_judgment, make_prompt
from training.models import Job, ModelVersion, Round, Run, RunEvent, RunMetric

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


def make_event(run: Run, seq: int, kind: str, *, attempt: int = 1, **body: object) -> RunEvent:
    """An event, ten seconds after the one before it."""
    return RunEvent.objects.create(
        run=run, attempt=attempt, seq=seq, kind=kind, body=body,
        at=BEGIN + timedelta(seconds=10 * seq),
    )  # fmt: skip


def make_curve(run: Run, name: str, *values: float) -> None:
    for step, value in enumerate(values, start=1):
        RunMetric.objects.create(run=run, name=name, step=step, value=value, attempt=1)
