"""What an annotator agrees to, and what is theirs: judgments that stand, revisions, hours."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.queue import DetailsIn, JudgmentOut, QueueEndpoint
from annotate.models import Judgment, Project
from annotate.selectors.my_work import hours_of, judgments_of
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


class MyHours(QueueEndpoint):
    @describe("my_hours", "Your judgments and active minutes by day and project", gives=HoursOut)
    def get(self, request: Request) -> Response:
        return Response(HoursOut({"days": hours_of(annotator=self.annotator())}).data)
