"""Rounds: launching one, watching it, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.models import Project, PromptSet, Snapshot
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Nothing, Strict
from training.api.runs import AlarmOut
from training.api.settings_field import SettingsField
from training.models import Job, ModelVersion, Round, Run
from training.selectors.alarms import run_alarms
from training.selectors.rounds import comparisons_opened, round_progress
from training.services.launching import MAX_KEY, launch_round
from training.services.promoting import LONGEST_REASON, promote_round, reject_round
from training.services.rounds import cancel_round, retry_round


class RoundOut(serializers.ModelSerializer[Round]):
    project = serializers.CharField(source="project.slug")
    snapshot = serializers.IntegerField(source="snapshot_id")
    reference = serializers.IntegerField(source="reference_id")
    reward_version = serializers.IntegerField(source="reward_version_id", allow_null=True)
    policy_version = serializers.IntegerField(source="policy_version_id", allow_null=True)
    fresh_prompts = serializers.IntegerField(source="fresh_prompts_id")
    config = serializers.DictField()

    class Meta:
        model = Round
        fields = (
            "id", "project", "number", "method", "state", "reason", "snapshot", "reference",
            "reward_version", "policy_version", "fresh_prompts", "config", "created_at",
            "finished_at",
        )  # fmt: skip
        read_only_fields = fields


class StageOut(serializers.Serializer[Any]):
    """One run of the round and where it stands."""

    run = serializers.IntegerField(source="id")
    stage = serializers.CharField()
    method = serializers.ChoiceField(Run.Method.choices)
    state = serializers.ChoiceField(Job.State.choices, source="job.state")
    output = serializers.IntegerField(source="output_id", allow_null=True)


class RoundDetailOut(RoundOut):
    runs = StageOut(many=True)
    comparisons_opened = serializers.SerializerMethodField()
    alarms = serializers.SerializerMethodField(help_text="Of its runs, each once")

    class Meta(RoundOut.Meta):
        fields = (*RoundOut.Meta.fields, "runs", "comparisons_opened", "alarms")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]

    def get_comparisons_opened(self, round: Round) -> int:
        return comparisons_opened(round).count()

    @extend_schema_field(AlarmOut(many=True))
    def get_alarms(self, round: Round) -> list[dict[str, Any]]:
        return [dict(AlarmOut(alarm).data) for alarm in run_alarms(list(round.runs.all()))]


class RoundIn(Strict):
    project = serializers.SlugField()
    snapshot = serializers.IntegerField(min_value=1, help_text="Id of a snapshot of the project")
    method = serializers.ChoiceField(Round.Method.choices)
    reference = serializers.IntegerField(
        min_value=1, help_text="Id of the version to start from and to compare with"
    )
    fresh_prompts = serializers.IntegerField(
        min_value=1, help_text="Id of the prompt set that the new policy answers"
    )
    reward_version = serializers.IntegerField(
        min_value=1, required=False, allow_null=True, help_text="A reward model to use again"
    )
    config = SettingsField(
        required=False,
        help_text='By stage, e.g. {"policy": {"optim": {"lr": 1e-4}}}; {"tuning": "full"} trains '
        "every weight (SFT and DPO)",
    )
    idempotency_key = serializers.CharField(
        required=False,
        max_length=MAX_KEY,
        help_text="Sent again with it, nothing is launched twice",
    )


class ProgressOfRoundOut(serializers.Serializer[Any]):
    state = serializers.ChoiceField(Round.State.choices)
    stage = serializers.CharField(allow_blank=True)
    step = serializers.IntegerField()
    total_steps = serializers.IntegerField()
    over = serializers.BooleanField(help_text="Nothing moves any more without a person")


class Rounds(Endpoint):
    class Query(Strict):
        project = serializers.SlugField(required=False)
        state = serializers.ChoiceField(Round.State.choices, required=False)
        method = serializers.ChoiceField(Round.Method.choices, required=False)

    @describe("list_rounds", "Rounds, newest first", gives=RoundOut(many=True), query=Query)
    def get(self, request: Request) -> Response:
        asked = self.filters(self.Query)
        if "project" in asked:
            asked["project__slug"] = asked.pop("project")
        return self.page(rounds_of(self).filter(**asked).order_by("-pk"), RoundOut)

    @describe(
        "launch_round",
        "Launch a round; a worker runs its stages",
        body=RoundIn,
        gives=RoundDetailOut,
        status=201,
        also={200: RoundDetailOut},
        problems=[409],
    )
    def post(self, request: Request) -> Response:
        asked = self.body(RoundIn)
        key = asked.get("idempotency_key", "")
        repeated = key and rounds_of(self).filter(launch_key=key).exists()
        versions = ModelVersion.objects.all()
        reward = asked.get("reward_version")
        launched = launch_round(
            project=self.named("project", Project.objects.all(), slug=asked["project"]),
            snapshot=self.named("snapshot", Snapshot.objects.all(), pk=asked["snapshot"]),
            method=asked["method"],
            reference=self.named("reference", versions, pk=asked["reference"]),
            fresh_prompts=self.named(
                "fresh_prompts", PromptSet.objects.all(), pk=asked["fresh_prompts"]
            ),
            reward_version=self.named("reward_version", versions, pk=reward) if reward else None,
            config=asked.get("config"),
            actor=self.person,
            launch_key=key,
        )
        code = status.HTTP_200_OK if repeated else status.HTTP_201_CREATED
        return shown(self, launched.pk, code)


class OneRound(Endpoint):
    @describe("get_round", "One round with its runs", gives=RoundDetailOut, problems=[404])
    def get(self, request: Request, pk: int) -> Response:
        return shown(self, pk)


class RoundProgress(Endpoint):
    @describe(
        "get_round_progress", "State and step, cheap enough to poll", gives=ProgressOfRoundOut,
        problems=[404],
    )  # fmt: skip
    def get(self, request: Request, pk: int) -> Response:
        found = self.find(Round.objects.all(), pk=pk)
        return Response(ProgressOfRoundOut(round_progress(found)).data)


class Deciding(Endpoint):
    """A verb on a round; its service refuses what the round's state does not allow."""

    def decide(self, pk: int, service: Callable[..., object]) -> Response:
        self.body(Nothing)
        service(round=self.find(Round.objects.all(), pk=pk))
        return shown(self, pk)


class Cancel(Deciding):
    @describe(
        "cancel_round",
        "Stop a round: a running stage ends as soon as its worker hears of it",
        body=Nothing,
        gives=RoundDetailOut,
        problems=[404, 409],
    )
    def post(self, request: Request, pk: int) -> Response:
        return self.decide(pk, cancel_round)


class Retry(Deciding):
    @describe(
        "retry_round", "Queue the failed or cancelled stage again", body=Nothing,
        gives=RoundDetailOut, problems=[404, 409],
    )  # fmt: skip
    def post(self, request: Request, pk: int) -> Response:
        return self.decide(pk, retry_round)


class PromoteIn(Strict):
    override = serializers.CharField(
        required=False,
        max_length=LONGEST_REASON,
        help_text="Why, where its evaluation failed the forgetting gate",
    )


class Promote(Endpoint):
    @describe(
        "promote_round", "Make the round's policy the project's promoted one", body=PromoteIn,
        gives=RoundDetailOut, problems=[404, 409],
    )  # fmt: skip
    def post(self, request: Request, pk: int) -> Response:
        asked = self.body(PromoteIn)
        promote_round(round=self.find(Round.objects.all(), pk=pk), **asked)
        return shown(self, pk)


class Reject(Deciding):
    @describe(
        "reject_round", "Keep the policy, marked as rejected", body=Nothing,
        gives=RoundDetailOut, problems=[404, 409],
    )  # fmt: skip
    def post(self, request: Request, pk: int) -> Response:
        return self.decide(pk, reject_round)


def rounds_of(endpoint: Endpoint) -> QuerySet[Round]:
    return Round.objects.filter(workspace=endpoint.workspace).select_related("project")


def shown(endpoint: Endpoint, pk: int, code: int = 200) -> Response:
    found = endpoint.find(rounds_of(endpoint).prefetch_related("runs__job"), pk=pk)
    return Response(RoundDetailOut(found).data, status=code)
