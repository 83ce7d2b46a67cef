"""Snapshots: freezing them, and their rows as they were hashed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.http import StreamingHttpResponse
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.export.writers import snapshot_lines
from annotate.models import Project, Snapshot, SnapshotRow
from annotate.selectors.lookup import find_judge
from annotate.services.freezing import freeze_snapshot
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Strict

NDJSON = "application/x-ndjson"


class SnapshotOut(serializers.ModelSerializer[Snapshot]):
    project = serializers.CharField(source="project.slug")
    rule = serializers.DictField(help_text="How rows were chosen, labelled, split and hashed")
    summary = serializers.DictField(help_text="Counts of what went in and what was left out")
    judge = serializers.CharField(
        source="rule.belief.machine.judge",
        default=None,
        allow_null=True,
        help_text="The machine that judged where no person did; null where people judged all",
    )
    by_machine = serializers.IntegerField(
        source="summary.by_machine", default=0, help_text="Rows that a machine judged"
    )

    class Meta:
        model = Snapshot
        fields = (
            "id", "project", "number", "n_train", "n_test", "sha256", "rule", "summary", "judge",
            "by_machine", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class SnapshotIn(Strict):
    test_fraction = serializers.FloatField(default=0.2, help_text="Above 0 and below 1")
    leave_out_known = serializers.BooleanField(
        default=False,
        help_text="Judgments of people who said that they knew the model do not count",
    )
    judge = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=80,
        help_text="An accepted machine judge for what no person judged, as NAME (its newest "
        "version) or NAME:VERSION; by default people alone count",
    )


class Snapshots(Endpoint):
    @describe(
        "list_snapshots", "A project's snapshots", gives=SnapshotOut(many=True), query=Strict,
        problems=[404],
    )  # fmt: skip
    def get(self, request: Request, slug: str) -> Response:
        project = self.find(Project.objects.all(), slug=slug)
        self.filters(Strict)
        return self.page(
            project.snapshots.select_related("project").order_by("-number"), SnapshotOut
        )

    @describe(
        "freeze_snapshot",
        "Aggregate the judgments of now and freeze them",
        body=SnapshotIn,
        gives=SnapshotOut,
        status=201,
        problems=[404, 409],
    )
    def post(self, request: Request, slug: str) -> Response:
        project = self.find(Project.objects.all(), slug=slug)
        asked = self.body(SnapshotIn)
        name = asked.pop("judge")
        judge = find_judge(name, workspace=self.workspace.slug) if name else None
        made = freeze_snapshot(project=project, actor=self.person, judge=judge, **asked)
        return Response(SnapshotOut(made).data, status=status.HTTP_201_CREATED)


class OneSnapshot(Endpoint):
    @describe("get_snapshot", "One snapshot", gives=SnapshotOut, problems=[404])
    def get(self, request: Request, pk: int) -> Response:
        return Response(SnapshotOut(one(self, pk)).data)


class SnapshotRows(Endpoint):
    class Query(Strict):
        split = serializers.ChoiceField(
            SnapshotRow.Split.choices,
            required=False,
            help_text="Of both splits, the SHA-256 of the answer is the snapshot's",
        )
        format = serializers.ChoiceField(["jsonl"], default="jsonl")

    @describe(
        "read_rows",
        "The rows as canonical JSON lines, streamed",
        query=Query,
        media=NDJSON,
        problems=[404],
    )
    def get(self, request: Request, pk: int) -> StreamingHttpResponse:
        split = self.query(self.Query).get("split")
        snapshot = one(self, pk)
        name = f"{snapshot.project.slug}-{snapshot.number}{f'-{split}' if split else ''}.jsonl"
        return StreamingHttpResponse(
            encoded(snapshot, split),
            content_type=NDJSON,
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )


def one(endpoint: Endpoint, pk: int) -> Any:
    return endpoint.find(Snapshot.objects.select_related("project"), pk=pk)


def encoded(snapshot: Snapshot, split: str | None) -> Iterator[bytes]:
    for line in snapshot_lines(snapshot=snapshot, split=split):
        yield f"{line}\n".encode()
