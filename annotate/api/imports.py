"""Comparisons and their judgments, or texts to label, from a file."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.uploads import UploadEndpoint, UploadIn, stored
from annotate.formats.reading import FORMATS
from annotate.models import Project
from annotate.services.ingest import import_comparisons
from annotate.services.rankings import import_rankings
from annotate.services.texts import import_texts
from rlhf_platform.accounts.api.description import BadRow, describe


class ComparisonsIn(UploadIn):
    format = serializers.ChoiceField(["auto", *FORMATS], default="auto")


class ImportOut(serializers.Serializer[Any]):
    comparisons_new = serializers.IntegerField()
    comparisons_seen = serializers.IntegerField(help_text="Already there, and left as they are")
    judgments_new = serializers.IntegerField()
    judgments_seen = serializers.IntegerField()
    bad_rows = BadRow(many=True, help_text="Left out, with skip_bad")


class Imports(UploadEndpoint):
    @describe(
        "import_comparisons",
        "Import HH-RLHF, PandaLM or TRL preference rows: all of them, or none",
        upload=ComparisonsIn,
        gives=ImportOut,
        status=201,
        problems=[404, 409],
    )
    def post(self, request: Request, slug: str) -> Response:
        project = self.find(Project.objects.all(), slug=slug)
        asked = self.body(ComparisonsIn)
        with stored(asked.pop("file")) as path:
            report = import_comparisons(project=project, path=path, **asked)
        return Response(ImportOut(report).data, status=status.HTTP_201_CREATED)


class TextsOut(serializers.Serializer[Any]):
    texts_new = serializers.IntegerField()
    texts_seen = serializers.IntegerField(help_text="Already there, and left as they are")
    known_labels = serializers.IntegerField(help_text="New texts whose label is known")
    bad_rows = BadRow(many=True, help_text="Left out, with skip_bad")
    contradictions = BadRow(many=True, help_text="Another known label than before, not stored")


class TextImports(UploadEndpoint):
    @describe(
        "import_texts",
        "Import texts to label (JSON lines, Parquet, CSV, TSV): all of them, or none",
        upload=UploadIn,
        gives=TextsOut,
        status=201,
        problems=[404, 409],
    )
    def post(self, request: Request, slug: str) -> Response:
        project = self.find(Project.objects.all(), slug=slug)
        asked = self.body(UploadIn)
        with stored(asked.pop("file")) as path:
            report = import_texts(project=project, path=path, **asked)
        return Response(TextsOut(report).data, status=status.HTTP_201_CREATED)


class RankingsOut(serializers.Serializer[Any]):
    rankings_new = serializers.IntegerField()
    rankings_seen = serializers.IntegerField(help_text="Already there, and left as they are")
    judgments_new = serializers.IntegerField(help_text="Orders that came along")
    judgments_seen = serializers.IntegerField()
    bad_rows = BadRow(many=True, help_text="Left out, with skip_bad")
    contradictions = BadRow(many=True, help_text="Another order than before, not stored")


class RankingImports(UploadEndpoint):
    @describe(
        "import_rankings",
        "Import prompts with 4 to 9 responses each (JSON lines, Parquet): all of them, or none",
        upload=UploadIn,
        gives=RankingsOut,
        status=201,
        problems=[404, 409],
    )
    def post(self, request: Request, slug: str) -> Response:
        project = self.find(Project.objects.all(), slug=slug)
        asked = self.body(UploadIn)
        with stored(asked.pop("file")) as path:
            report = import_rankings(project=project, path=path, **asked)
        return Response(RankingsOut(report).data, status=status.HTTP_201_CREATED)
