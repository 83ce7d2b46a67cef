"""What an annotator agrees to, and what is theirs: judgments that stand, revisions, hours."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.queue import DetailsIn, JudgmentOut, QueueEndpoint
from annotate.models import Judgment, Project
from annotate.selectors.my_work import hours_of, judgments_of
from annotate.services.hotkeys import FIRST, hotkeys_of, keep_hotkeys
from annotate.services.judging import MAX_KEY
from annotate.services.participation import accept_consent
from annotate.services.questions import MAX_RATIONALE
from annotate.services.revising import revise_judgment
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Strict


class ConsentIn(Strict):
    version = serializers.IntegerField(
        min_value=1, help_text="The version of the text that the person read"
    )


class ConsentOut(serializers.Serializer[Any]):
    version = serializers.IntegerField(source="consent_version")
    consented_at = serializers.DateTimeField()


class ReviseIn(Strict):
    answer = serializers.CharField(max_length=80)
    rationale = serializers.CharField(max_length=MAX_RATIONALE, allow_blank=True, default="")
    idempotency_key = serializers.CharField(max_length=MAX_KEY)
    strength = serializers.IntegerField(required=False, allow_null=True)
    details = DetailsIn(required=False, help_text="Nothing is carried over: say all of it again")


class DayOut(serializers.Serializer[Any]):
    day = serializers.DateField()
    project = serializers.CharField()
    judgments = serializers.IntegerField()
    active_minutes = serializers.FloatField()


class HoursOut(serializers.Serializer[Any]):
    days = DayOut(many=True)


class Consent(QueueEndpoint):
    @describe(
        "accept_consent",
        "Accept what a project asks before it shows anything",
        body=ConsentIn,
        gives=ConsentOut,
        problems=[404, 409],
    )
    def post(self, request: Request, slug: str) -> Response:
        project = self.find(Project.objects.all(), slug=slug)
        part = accept_consent(project=project, annotator=self.annotator(), **self.body(ConsentIn))
        return Response(ConsentOut(part).data)


class MyJudgments(QueueEndpoint):
    class Query(Strict):
        project = serializers.CharField(max_length=60, default="")
        search = serializers.CharField(max_length=200, default="")

    @describe(
        "list_my_judgments",
        "Your judgments that stand, the newest first",
        gives=JudgmentOut(many=True),
        query=Query,
    )
    def get(self, request: Request) -> Response:
        asked = self.filters(self.Query)
        return self.page(judgments_of(annotator=self.annotator(), **asked), JudgmentOut)


class Revising(QueueEndpoint):
    @describe(
        "revise_judgment",
        "Say something else within the project's window; what you said stays in the history",
        body=ReviseIn,
        gives=JudgmentOut,
        problems=[404, 409],
    )
    def post(self, request: Request, pk: int) -> Response:
        annotator = self.annotator()
        own = Judgment.objects.filter(annotator=annotator)
        judgment = self.find(own.select_related("comparison__project", "assignment"), pk=pk)
        asked = self.body(ReviseIn)
        later = revise_judgment(judgment=judgment, annotator=annotator, **asked)
        return Response(JudgmentOut(later).data)


class HotkeysIn(Strict):
    on = serializers.BooleanField(
        default=True, help_text="Whether single keys mean anything; arrows and Enter always do"
    )
    pace = serializers.BooleanField(default=True, help_text="Whether the screen shows the pace")
    keys = serializers.DictField(
        child=serializers.CharField(max_length=1),
        default=dict,
        help_text=f"Of {', '.join(FIRST)}: those that are not as they were at first",
    )


class HotkeysOut(serializers.Serializer[Any]):
    on = serializers.BooleanField()
    pace = serializers.BooleanField()
    keys = serializers.DictField(child=serializers.CharField())


class MyHotkeys(QueueEndpoint):
    @describe("get_my_keys", "Your keys on the judging screen", gives=HotkeysOut)
    def get(self, request: Request) -> Response:
        return Response(HotkeysOut(hotkeys_of(user=self.person)).data)

    @describe(
        "set_my_keys", "Choose your keys, in every workspace", body=HotkeysIn, gives=HotkeysOut
    )
    def put(self, request: Request) -> Response:
        kept = keep_hotkeys(user=self.person, **self.body(HotkeysIn))
        return Response(HotkeysOut(kept).data)


class MyHours(QueueEndpoint):
    @describe("my_hours", "Your judgments and active minutes by day and project", gives=HoursOut)
    def get(self, request: Request) -> Response:
        return Response(HoursOut({"days": hours_of(annotator=self.annotator())}).data)
