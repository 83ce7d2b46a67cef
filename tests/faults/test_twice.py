"""Every actor and every kind of job is done twice: the second time changes nothing.

A worker may die after its last write and before anybody hears of it; the job then comes again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import pytest
from django.apps import apps
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from pytest_django.fixtures import Settings

from annotate.export.hub import Patience
from annotate.services.freezing import freeze_snapshot
from tests.factories import make_project
from tests.faults.installation import stand_in
from tests.hub_server import Hub
from tests.people import People
from tests.training.rows import make_prompt_set, make_snapshot
from tests.training.test_launching_runs import make_labelled, make_quiz, make_text_set
from training.actors import WAKE, broker
from training.models import Job, ModelVersion, Round, Run
from training.services import queueing
from training.services.executing import execute_run
from training.services.launching import launch_round, launch_sampling
from training.services.launching_runs import launch_run
from training.services.publishing import execute_push, queue_model_push, queue_snapshot_push
from training.services.versions import base_version

pytestmark = pytest.mark.django_db(transaction=True)
#: What tells of the job's own way through the queue, which a second way changes rightly.
BOOKKEEPING = ("training.Job", "training.JobAttempt", "training.JobEvent")
APPS = ("accounts", "annotate", "training")
#: Kinds whose only write is that of their end, in one transaction: there is no between.
AT_ONCE = {Job.Kind.JUDGE, Job.Kind.MEASURE}


def state_hash() -> str:
    """SHA-256 over every row of ours but the queue's own, without the moments of their writing."""
    digest = hashlib.sha256()
    for model in sorted(apps.get_models(), key=lambda model: model._meta.label):
        if model._meta.app_label not in APPS or model._meta.label in BOOKKEEPING:
            continue
        fields = [
            field.attname
            for field in model._meta.concrete_fields
            if not isinstance(field, models.DateTimeField)
        ]
        rows = list(model._default_manager.order_by("pk").values(*fields))
        text = json.dumps(rows, cls=DjangoJSONEncoder, sort_keys=True)
        digest.update(f"{model._meta.label} {text}\n".encode())
    return digest.hexdigest()


def execute(job: Job) -> Job:
    """What a worker's loop does with one job."""
    claim = queueing.claim(job_id=job.pk)
    assert claim is not None
    if job.kind == Job.Kind.RUN:
        execute_run(claim=claim, stopping=threading.Event(), command=stand_in(steps=2))
    else:
        patience = Patience(base_s=0.01)
        execute_push(claim=claim, stopping=threading.Event(), patience=patience)
    job.refresh_from_db()
    assert job.state == Job.State.SUCCEEDED, job.detail
    return job


def execute_twice(job: Job) -> None:
    """Execute a job, and again as if nobody had heard of its end."""
    execute(job)
    once = state_hash()
    Job.objects.filter(pk=job.pk).update(state=Job.State.QUEUED, finished_at=None)
    execute(job)
    assert state_hash() == once, f"{job} {job.run.stage if job.run else ''}"


def work_off_twice() -> set[str]:
    """Execute twice whatever waits, until nothing does; the methods of the runs."""
    methods = set()
    while (job := Job.objects.filter(state=Job.State.QUEUED).order_by("pk").first()) is not None:
        execute_twice(job)
        if job.run is not None:
            methods.add(job.run.method)
    return methods


def test_every_kind_of_job(people: People, hub: Hub, settings: Settings, tmp_path: Path) -> None:
    settings.RUNS_DIR = tmp_path / "runs"
    project = make_project(people.workspace)
    snapshot, fresh = make_snapshot(project), make_prompt_set(people.workspace)
    base = base_version(workspace=people.workspace, quantization="none")
    asked = {
        "project": project, "snapshot": snapshot, "reference": base, "fresh_prompts": fresh,
    }  # fmt: skip

    launch_sampling(project=project, version=base, prompt_set=fresh)
    launch_round(method="ppo", config={"sft": {}}, **asked)
    methods = work_off_twice()
    reward = ModelVersion.objects.get(kind="reward")
    for method in ("dpo", "kto", "orpo", "grpo", "rloo"):
        launch_round(method=method, reward_version=reward, **asked)
        methods |= work_off_twice()
    texts, labelled = make_text_set(people.workspace), make_labelled(people, tmp_path)
    labels = freeze_snapshot(project=labelled)
    single = {"workspace": people.workspace, "version": base}
    launch_run(method="pretrain", text_set=texts, **single)
    launch_run(method="classify", snapshot=labels, **single)
    for method in ("answer", "compare"):
        launch_run(method=method, text_set=make_quiz(people.workspace), documents=texts, **single)
    methods |= work_off_twice()
    assert methods == set(Run.Method.values)
    assert set(Round.objects.values_list("state", flat=True)) == {Round.State.AWAITING_VERDICT}

    policy = ModelVersion.objects.filter(kind="policy").latest("pk")
    execute_twice(queue_snapshot_push(snapshot=snapshot, repo="lab/data"))
    execute_twice(queue_model_push(version=policy, repo="lab/policy"))
    assert {job.kind for job in Job.objects.all()} == set(Job.Kind.values) - AT_ONCE
    for kind, name in (("dataset", "lab/data"), ("model", "lab/policy")):
        assert len(hub.repos[kind, name].pushes) == 1


def test_every_actor(people: People) -> None:
    base = base_version(workspace=people.workspace)
    run = Run.objects.create(
        workspace=people.workspace, method="sample", config={}, folder="x", version=base
    )
    job = queueing.enqueue(
        kind="run", queue="sampling", workspace=people.workspace, run=run, payload={}
    )
    before, waiting = state_hash(), Job.objects.values().get()
    assert set(broker.get_declared_actors()) == {actor.actor_name for actor in WAKE.values()}
    for name in broker.get_declared_actors():
        for job_id in (job.pk, job.pk, 10**9, -1):
            broker.get_actor(name).fn(job_id)
    assert state_hash() == before
    assert Job.objects.values().get() == waiting
