"""What is wrong with a snapshot's rows, before anything is launched on them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.models import Snapshot
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint
from training.selectors.preflight import LEVELS, snapshot_preflight


class CheckOut(serializers.Serializer[Any]):
    code = serializers.CharField()
    level = serializers.ChoiceField(list(LEVELS), help_text="refuse: nothing could be learnt")
    count = serializers.IntegerField(help_text="Rows it is about")
    of = serializers.IntegerField(help_text="Rows that were looked at")
    message = serializers.CharField()
    todo = serializers.CharField(allow_blank=True)
    examples = serializers.ListField(child=serializers.CharField(), help_text="Up to three row ids")


class PreflightOut(serializers.Serializer[Any]):
    refused = serializers.BooleanField(help_text="Whether a run on these rows would be refused")
    rows = serializers.IntegerField(help_text="Rows looked at: at most 20,000 of a split")
    of = serializers.IntegerField(help_text="Rows there are")
    results = CheckOut(many=True, source="checks")


class SnapshotPreflight(Endpoint):
    @describe(
        "inspect_snapshot",
        "What is wrong with a snapshot's rows, by their text: duplicates, contradictions, length",
        gives=PreflightOut,
        problems=[404],
    )
    def get(self, request: Request, pk: int) -> Response:
        found = self.find(Snapshot.objects.all(), pk=pk)
        return Response(PreflightOut(snapshot_preflight(snapshot=found)).data)
