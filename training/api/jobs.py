"""Jobs and queues: how each stands and why, every attempt, and what a person may do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Nothing, Strict
from training.models import Job, JobAttempt
from training.selectors.checkpoints import run_checkpoints
from training.selectors.jobs import job_standing
from training.selectors.queues import jobs_of, queue_states
from training.selectors.workers import workers_seen
from training.services.controlling import cancel_job, retry_job


class JobOut(serializers.ModelSerializer[Job]):
    run = serializers.IntegerField(source="run_id", allow_null=True)
    round = serializers.IntegerField(source="round_id", allow_null=True)
    outcome = serializers.DictField(
        allow_null=True,
        help_text="Of a push: repo, url, commit; a judging: counts; a measurement: distance",
    )

    class Meta:
        model = Job
        fields = (
            "id", "kind", "queue", "state", "run", "round", "reason", "detail", "attempts",
            "strikes", "max_strikes", "cancel_requested", "outcome", "created_at", "started_at",
            "finished_at",
        )  # fmt: skip
        read_only_fields = fields


class AttemptOut(serializers.ModelSerializer[JobAttempt]):
    outcome = serializers.CharField(allow_blank=True, help_text="Empty while it runs")

    class Meta:
        model = JobAttempt
        fields = ("number", "worker", "started_at", "ended_at", "outcome", "reason", "detail")
        read_only_fields = fields


class CheckpointOut(serializers.Serializer[Any]):
    step = serializers.IntegerField()
    attempt = serializers.IntegerField(allow_null=True)
    size_bytes = serializers.IntegerField()
    sha256 = serializers.CharField(allow_blank=True, help_text="Of its manifest")
    created_at = serializers.DateTimeField(allow_null=True)
    removed_at = serializers.DateTimeField(allow_null=True, help_text="Deleted to free space")
    there = serializers.BooleanField(help_text="Whether its files are on the site's machine")


class ChangeOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    before = serializers.JSONField()
    after = serializers.JSONField()
    why = serializers.CharField()
    same_result = serializers.BooleanField()


class ProposalOut(serializers.Serializer[Any]):
    """Settings that need less memory."""

    changes = ChangeOut(many=True)
    config = serializers.SerializerMethodField(help_text="To launch with: the gentlest changes")

    def get_config(self, proposal: Any) -> dict[str, Any]:
        settings: dict[str, Any] = json.loads(proposal.first.settings)
        return settings


class JobDetailOut(JobOut):
    waits = serializers.ListField(child=serializers.CharField(), help_text="Why it does not move")
    meaning = serializers.CharField(allow_blank=True, help_text="Why it ended, in plain words")
    todo = serializers.CharField(allow_blank=True, help_text="What a person can do about it")
    may_cancel = serializers.BooleanField()
    may_retry = serializers.BooleanField()
    resume_step = serializers.IntegerField(
        allow_null=True, help_text="Where another attempt goes on; null where it begins anew"
    )
    proposal = ProposalOut(allow_null=True)
    attempt_history = AttemptOut(many=True, source="attempt_rows")
    checkpoints = CheckpointOut(many=True)

    class Meta(JobOut.Meta):
        fields = (  # type: ignore[assignment]
            *JobOut.Meta.fields, "waits", "meaning", "todo", "may_cancel", "may_retry",
            "resume_step", "proposal", "attempt_history", "checkpoints",
        )  # fmt: skip
        read_only_fields = fields  # type: ignore[assignment]

    def to_representation(self, job: Job) -> dict[str, Any]:
        found: Any = job
        found.checkpoints = run_checkpoints(job.run) if job.run else []
        standing = job_standing(job, found.checkpoints)
        for name in ("waits", "may_cancel", "may_retry", "resume_step", "proposal"):
            setattr(found, name, getattr(standing, name))
        found.meaning = standing.advice.meaning if standing.advice else ""
        found.todo = standing.advice.todo if standing.advice else ""
        return super().to_representation(found)


class QueueOut(serializers.Serializer[Any]):
    queue = serializers.ChoiceField(Job.Queue.choices)
    queued = serializers.IntegerField()
    oldest = serializers.DateTimeField(allow_null=True, help_text="Since when the oldest waits")
    running = serializers.IntegerField()
    overdue = serializers.IntegerField(help_text="Running jobs whose worker fell silent")
    last_taken = serializers.DateTimeField(allow_null=True)
    usual_wait_s = serializers.FloatField(
        allow_null=True, help_text="Median from launch to first attempt, over the latest `waits`"
    )
    waits = serializers.IntegerField()
    stuck = serializers.CharField(allow_blank=True, help_text="Why nothing moves; empty if it does")


class WorkerOut(serializers.Serializer[Any]):
    """A worker with a claim, or that ended one within the last hour."""

    name = serializers.CharField()
    busy = serializers.BooleanField()
    job = serializers.IntegerField(allow_null=True, help_text="null for another workspace's")
    since = serializers.DateTimeField()
    lease_until = serializers.DateTimeField(allow_null=True)
    overdue = serializers.BooleanField()


class QueuesOut(serializers.Serializer[Any]):
    results = QueueOut(many=True)
    workers = WorkerOut(many=True)


class Jobs(Endpoint):
    class Query(Strict):
        state = serializers.ChoiceField(Job.State.choices, required=False)
        queue = serializers.ChoiceField(Job.Queue.choices, required=False)
        kind = serializers.ChoiceField(Job.Kind.choices, required=False)

    @describe("list_jobs", "Jobs, newest first", gives=JobOut(many=True), query=Query)
    def get(self, request: Request) -> Response:
        rows = jobs_of(workspace=self.workspace).filter(**self.filters(self.Query))
        return self.page(rows, JobOut)


class OneJob(Endpoint):
    @describe(
        "get_job", "One job with its attempts and checkpoints", gives=JobDetailOut, problems=[404]
    )
    def get(self, request: Request, pk: int) -> Response:
        return shown(self, pk)


class Deciding(Endpoint):
    """A verb on a job; its service refuses what the job's state does not allow."""

    def decide(self, pk: int, service: Callable[..., None]) -> Response:
        self.body(Nothing)
        service(job=self.find(all_jobs(), pk=pk))
        return shown(self, pk)


class Cancel(Deciding):
    @describe(
        "cancel_job",
        "Stop a job, and the round it belongs to; a running one ends when its worker hears of it",
        body=Nothing,
        gives=JobDetailOut,
        problems=[404, 409],
    )
    def post(self, request: Request, pk: int) -> Response:
        return self.decide(pk, cancel_job)


class Retry(Deciding):
    @describe(
        "retry_job",
        "Queue a failed or cancelled job again, its round with it; it goes on from its checkpoint",
        body=Nothing,
        gives=JobDetailOut,
        problems=[404, 409],
    )
    def post(self, request: Request, pk: int) -> Response:
        return self.decide(pk, retry_job)


class Queues(Endpoint):
    @describe("get_queues", "Every queue, and the workers that were seen", gives=QueuesOut)
    def get(self, request: Request) -> Response:
        found = {
            "results": queue_states(workspace=self.workspace),
            "workers": workers_seen(workspace=self.workspace),
        }
        return Response(QueuesOut(found).data)


def all_jobs() -> QuerySet[Job]:
    return Job.objects.select_related("run__round", "round")


def shown(endpoint: Endpoint, pk: int) -> Response:
    found = endpoint.find(all_jobs().prefetch_related("attempt_rows"), pk=pk)
    return Response(JobDetailOut(found).data)
