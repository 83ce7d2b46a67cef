"""The registry: bases and the adapters trained on them, with the line that leads to each."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Strict
from training.models import ModelVersion
from training.selectors.lineage import version_lineage
from training.services.versions import hub_base_version


class VersionOut(serializers.ModelSerializer[ModelVersion]):
    project = serializers.CharField(source="project.slug", allow_null=True, default=None)
    parent = serializers.IntegerField(  # type: ignore[assignment]
        source="parent_id", allow_null=True
    )
    run = serializers.IntegerField(source="run_id", allow_null=True)
    round = serializers.IntegerField(source="run.round_id", allow_null=True, default=None)
    base = serializers.DictField(help_text="Source, revision, dtype and quantization")
    metrics = serializers.DictField()

    class Meta:
        model = ModelVersion
        fields = (
            "id", "name", "kind", "state", "project", "parent", "run", "round", "base", "digest",
            "metrics", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class LineageOut(serializers.Serializer[Any]):
    """snapshot ▸ run ▸ version ▸ samples ▸ comparisons ▸ judgments."""

    run = serializers.IntegerField(source="run.id", allow_null=True, default=None)
    snapshot = serializers.IntegerField(source="snapshot.id", allow_null=True, default=None)
    judgments = serializers.IntegerField(help_text="That taught it")
    annotators = serializers.IntegerField()
    samples = serializers.IntegerField()
    comparisons = serializers.IntegerField(help_text="That hold a sample of it")
    answered = serializers.IntegerField(help_text="Judgments on these")


class VersionDetailOut(VersionOut):
    lineage = serializers.SerializerMethodField()

    class Meta(VersionOut.Meta):
        fields = (*VersionOut.Meta.fields, "lineage")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]

    def get_lineage(self, version: ModelVersion) -> LineageOut:
        return LineageOut(version_lineage(version)).data  # type: ignore[return-value]


class BaseIn(Strict):
    source = serializers.CharField(  # type: ignore[assignment]
        max_length=200, help_text="`demo` or `minilm`, or a Hub id OWNER/NAME"
    )
    quantization = serializers.ChoiceField(["nf4", "int8", "none"], default="nf4")
    dtype = serializers.ChoiceField(["float32", "bfloat16"], default="float32")


class Versions(Endpoint):
    class Query(Strict):
        kind = serializers.ChoiceField(ModelVersion.Kind.choices, required=False)
        state = serializers.ChoiceField(ModelVersion.State.choices, required=False)
        project = serializers.SlugField(required=False)

    @describe(
        "list_versions", "Model versions, newest first", gives=VersionOut(many=True), query=Query
    )
    def get(self, request: Request) -> Response:
        asked = self.filters(self.Query)
        if "project" in asked:
            asked["project__slug"] = asked.pop("project")
        return self.page(versions_of(self).filter(**asked).order_by("-pk"), VersionOut)

    @describe(
        "register_base",
        "The version that stands for a base model; the same base again is the same version",
        body=BaseIn,
        gives=VersionOut,
        status=201,
    )
    def post(self, request: Request) -> Response:
        made = hub_base_version(workspace=self.workspace, **self.body(BaseIn))
        return Response(VersionOut(made).data, status=status.HTTP_201_CREATED)


class OneVersion(Endpoint):
    @describe("get_version", "One version with its lineage", gives=VersionDetailOut, problems=[404])
    def get(self, request: Request, pk: int) -> Response:
        return Response(VersionDetailOut(self.find(versions_of(self), pk=pk)).data)


def versions_of(endpoint: Endpoint) -> QuerySet[ModelVersion]:
    rows = ModelVersion.objects.filter(workspace=endpoint.workspace)
    return rows.select_related("project", "run__round__snapshot")
