"""How the labels of a project are given, and how well."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.models import Project
from annotate.selectors.label_quality import label_quality
from annotate.services.labels import require_kind
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint


class ScoreOut(serializers.Serializer[Any]):
    right = serializers.IntegerField()
    n = serializers.IntegerField(help_text="Judgments of texts whose label is known")
    share = serializers.FloatField(allow_null=True, help_text="null while n is 0")
    low = serializers.FloatField()
    high = serializers.FloatField()


class LabelRowOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    judgments = serializers.IntegerField()
    texts = serializers.IntegerField(help_text="Texts that most people gave this label")
    together = serializers.FloatField(
        allow_null=True, help_text="Of those who gave it, how many of the others did too"
    )
    known = ScoreOut(help_text="Of judgments of texts known to have it, those that said so")


class PersonOut(serializers.Serializer[Any]):
    annotator = serializers.CharField()
    judgments = serializers.IntegerField()
    agreement = serializers.FloatField(allow_null=True)
    known = ScoreOut()


class LabelsOut(serializers.Serializer[Any]):
    known = ScoreOut()
    labels = LabelRowOut(many=True)
    people = PersonOut(many=True)


class Labels(Endpoint):
    @describe(
        "get_labels",
        "Judgments by label and by annotator, against each other and against known labels",
        gives=LabelsOut,
        problems=[404, 409],
    )
    def get(self, request: Request, slug: str) -> Response:
        project = self.find(Project.objects.all(), slug=slug)
        require_kind(project, Project.Kind.LABELS)
        return Response(LabelsOut(label_quality(project=project)).data)
