"""Runs: where they stand, what they report, and how their metrics move."""

from __future__ import annotations

import re
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.models import Snapshot
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Strict
from training.api.preflight import CheckOut
from training.api.settings_field import SettingsField
from training.models import Job, ModelVersion, Run, RunEvent, TextSet
from training.selectors.alarms import run_alarms
from training.selectors.events import Cursor, events_after
from training.selectors.preflight import run_preflight
from training.selectors.runs import run_progress
from training.selectors.series import run_series, without_our_paths
from training.services.launching import MAX_KEY
from training.services.launching_runs import launch_run
from training.services.methods import LAUNCHABLE, TUNINGS


class AlarmOut(serializers.Serializer[Any]):
    run = serializers.IntegerField(source="run.pk")
    name = serializers.CharField()
    step = serializers.IntegerField()
    metric = serializers.CharField()
    value = serializers.FloatField(allow_null=True)
    threshold = serializers.FloatField(allow_null=True)
    message = serializers.CharField()
    remedy = serializers.CharField()
    stopped = serializers.BooleanField(help_text="Whether it ended the run")
    kept_step = serializers.IntegerField(
        allow_null=True, help_text="Where it did: the steps behind the weights that were kept"
    )


class RunListOut(serializers.ModelSerializer[Run]):
    """A run in a list; where it stands and what it measured is told of one alone."""

    round = serializers.IntegerField(source="round_id", allow_null=True)
    snapshot = serializers.IntegerField(
        source="snapshot_id", allow_null=True, help_text="Of a run outside a round"
    )
    text_set = serializers.IntegerField(source="text_set_id", allow_null=True)
    documents = serializers.IntegerField(
        source="documents_id", allow_null=True, help_text="Text set that was looked up in"
    )
    version = serializers.IntegerField(source="version_id")
    output = serializers.IntegerField(source="output_id", allow_null=True)
    state = serializers.ChoiceField(Job.State.choices, source="job.state")

    class Meta:
        model = Run
        fields = (
            "id", "round", "stage", "method", "version", "snapshot", "text_set", "documents",
            "output", "state", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class RunOut(RunListOut):
    attempts = serializers.IntegerField(source="job.attempts")
    reason = serializers.CharField(source="job.reason", allow_blank=True)
    detail = serializers.CharField(source="job.detail", allow_blank=True)
    started_at = serializers.DateTimeField(source="job.started_at", allow_null=True)
    finished_at = serializers.DateTimeField(source="job.finished_at", allow_null=True)
    step = serializers.SerializerMethodField()
    total_steps = serializers.SerializerMethodField()
    config = serializers.SerializerMethodField(help_text="The engine's, as it was run")
    result = serializers.SerializerMethodField(help_text="null until it ended")
    alarms = serializers.SerializerMethodField(help_text="Each once, in the order they rang")
    preflight = serializers.SerializerMethodField(
        help_text="What the engine found in the rows before its first step; null before that"
    )

    class Meta(RunListOut.Meta):
        fields = (
            *RunListOut.Meta.fields, "attempts", "reason", "detail", "step", "total_steps",
            "config", "result", "alarms", "preflight", "started_at", "finished_at",
        )  # type: ignore[assignment]  # fmt: skip
        read_only_fields = fields  # type: ignore[assignment]

    def to_representation(self, run: Run) -> dict[str, Any]:
        self._step, self._total_steps = run_progress(run)
        return super().to_representation(run)

    def get_step(self, run: Run) -> int:
        return self._step

    def get_total_steps(self, run: Run) -> int:
        return self._total_steps

    def get_config(self, run: Run) -> dict[str, Any]:
        return without_our_paths(run.config)

    def get_result(self, run: Run) -> dict[str, Any] | None:
        return without_our_paths(run.result)

    @extend_schema_field(AlarmOut(many=True))
    def get_alarms(self, run: Run) -> list[dict[str, Any]]:
        return [dict(AlarmOut(alarm).data) for alarm in run_alarms([run])]

    @extend_schema_field(CheckOut(many=True, allow_null=True))
    def get_preflight(self, run: Run) -> list[dict[str, Any]] | None:
        found = run_preflight(run)
        return None if found is None else [dict(CheckOut(each).data) for each in found.checks]


class EventOut(serializers.ModelSerializer[RunEvent]):
    body = serializers.SerializerMethodField()

    class Meta:
        model = RunEvent
        fields = ("attempt", "seq", "kind", "at", "body")
        read_only_fields = fields

    def get_body(self, event: RunEvent) -> dict[str, Any]:
        return without_our_paths(event.body)


class EventsOut(serializers.Serializer[Any]):
    results = EventOut(many=True)
    next = serializers.CharField(help_text="Send it as `after` next time")
    more = serializers.BooleanField(help_text="More are there already; no need to wait")


class PointOut(serializers.Serializer[Any]):
    step = serializers.IntegerField()
    value = serializers.FloatField(allow_null=True, help_text="null where it was no finite number")


class SeriesOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    meaning = serializers.CharField(allow_blank=True)
    points = PointOut(many=True)


class MetricsOut(serializers.Serializer[Any]):
    results = SeriesOut(many=True)


class RunIn(Strict):
    method = serializers.ChoiceField([(name, each.title) for name, each in LAUNCHABLE.items()])
    version = serializers.IntegerField(min_value=1, help_text="Id of the version to start from")
    snapshot = serializers.IntegerField(
        min_value=1, required=False, allow_null=True, help_text="For classify, sft and evaluate"
    )
    text_set = serializers.IntegerField(
        min_value=1,
        required=False,
        allow_null=True,
        help_text="Documents for pretrain, labelled texts for classify, conversations for sft, "
        "questions for answer and compare",
    )
    documents = serializers.IntegerField(
        min_value=1,
        required=False,
        allow_null=True,
        help_text="Text set to look things up in (answer, compare)",
    )
    tuning = serializers.ChoiceField(list(TUNINGS), default="lora")
    config = SettingsField(
        required=False, help_text='Settings of the engine, e.g. {"optim": {"max_steps": 50}}'
    )
    idempotency_key = serializers.CharField(
        required=False,
        max_length=MAX_KEY,
        help_text="Sent again with it, nothing is launched twice",
    )


class Runs(Endpoint):
    class Query(Strict):
        method = serializers.ChoiceField(Run.Method.choices, required=False)
        state = serializers.ChoiceField(Job.State.choices, required=False)
        round = serializers.IntegerField(min_value=1, required=False)

    @describe("list_runs", "Runs, newest first", gives=RunListOut(many=True), query=Query)
    def get(self, request: Request) -> Response:
        asked = self.filters(self.Query)
        if "state" in asked:
            asked["job__state"] = asked.pop("state")
        return self.page(runs_of(self).filter(**asked).order_by("-pk"), RunListOut)

    @describe(
        "launch_run",
        "Launch one method outside a round; a worker runs it",
        body=RunIn,
        gives=RunOut,
        status=201,
        also={200: RunOut},
        problems=[409],
    )
    def post(self, request: Request) -> Response:
        asked = self.body(RunIn)
        key = asked.pop("idempotency_key", "")
        repeated = key and runs_of(self).filter(launch_key=key).exists()
        sets = TextSet.objects.all()
        found = {
            name: self.named(name, rows, pk=asked[name]) if asked.get(name) else None
            for name, rows in (
                ("version", ModelVersion.objects.all()), ("snapshot", Snapshot.objects.all()),
                ("text_set", sets), ("documents", sets),
            )
        }  # fmt: skip
        launched = launch_run(
            workspace=self.workspace, actor=self.person, launch_key=key, **(asked | found)
        )
        code = status.HTTP_200_OK if repeated else status.HTTP_201_CREATED
        return Response(RunOut(runs_of(self).get(pk=launched.pk)).data, status=code)


def runs_of(endpoint: Endpoint) -> QuerySet[Run]:
    return Run.objects.filter(workspace=endpoint.workspace).select_related("job")


def run_of(endpoint: Endpoint, pk: int) -> Run:
    return endpoint.find(Run.objects.select_related("job"), pk=pk)


class OneRun(Endpoint):
    @describe("get_run", "One run", gives=RunOut, problems=[404])
    def get(self, request: Request, pk: int) -> Response:
        return Response(RunOut(run_of(self, pk)).data)


class RunEvents(Endpoint):
    class Query(Strict):
        after = serializers.RegexField(
            re.compile(r"^[0-9]{1,9}\.[0-9]{1,9}\Z"),
            default="0.0",
            help_text="ATTEMPT.SEQ of the last event that you have; the beginning by default",
        )
        limit = serializers.IntegerField(min_value=1, max_value=1000, default=200)

    @describe(
        "list_run_events", "Events after a cursor, oldest first", gives=EventsOut, query=Query,
        problems=[404],
    )  # fmt: skip
    def get(self, request: Request, pk: int) -> Response:
        asked = self.query(self.Query)
        attempt, _, seq = asked["after"].partition(".")
        cursor = Cursor(int(attempt), int(seq))
        events, more = events_after(run_of(self, pk), cursor, limit=asked["limit"])
        if events:
            cursor = Cursor(events[-1].attempt, events[-1].seq)
        answer = EventsOut({"results": events, "next": str(cursor), "more": more})
        return Response(answer.data)


class RunMetrics(Endpoint):
    class Query(Strict):
        name = serializers.CharField(max_length=60, required=False, help_text="This one alone")

    @describe(
        "get_run_metrics", "Every metric by step", gives=MetricsOut, query=Query, problems=[404]
    )
    def get(self, request: Request, pk: int) -> Response:
        asked = self.query(self.Query)
        results = [
            {
                "name": series.name,
                "meaning": series.meaning,
                "points": [{"step": step, "value": value} for step, value in series.points],
            }
            for series in run_series(run_of(self, pk), **asked)
        ]
        return Response(MetricsOut({"results": results}).data)
