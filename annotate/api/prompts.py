"""Prompt sets: named, versioned lists of prompts."""

from __future__ import annotations

from typing import Any

from django.db.models import Count
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.uploads import UploadEndpoint, UploadIn, stored
from annotate.models import PromptSet
from annotate.services.ingest import import_prompts
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Strict


class PromptSetIn(UploadIn):
    name = serializers.SlugField(max_length=50)
    use = serializers.ChoiceField(PromptSet.Use.choices, default=PromptSet.Use.FRESH)


class PromptSetOut(serializers.ModelSerializer[PromptSet]):
    n_prompts = serializers.IntegerField(read_only=True)

    class Meta:
        model = PromptSet
        fields = ("id", "name", "version", "use", "n_prompts", "created_at")
        read_only_fields = fields


class PromptSets(UploadEndpoint):
    class Query(Strict):
        name = serializers.SlugField(required=False)
        use = serializers.ChoiceField(PromptSet.Use.choices, required=False)

    @describe(
        "list_prompt_sets", "Every version of every set", gives=PromptSetOut(many=True),
        query=Query,
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        return self.page(self.sets().filter(**self.filters(self.Query)), PromptSetOut)

    @describe(
        "import_prompts",
        "Import a set; the same list again is the same version",
        upload=PromptSetIn,
        gives=PromptSetOut,
        status=201,
    )
    def post(self, request: Request) -> Response:
        asked = self.body(PromptSetIn)
        with stored(asked.pop("file")) as path:
            made = import_prompts(workspace=self.workspace, path=path, **asked)
        found = self.find(self.sets(), pk=made.pk)
        return Response(PromptSetOut(found).data, status=status.HTTP_201_CREATED)

    def sets(self) -> Any:
        rows = PromptSet.objects.filter(workspace=self.workspace)
        return rows.annotate(n_prompts=Count("entries")).order_by("-pk")
