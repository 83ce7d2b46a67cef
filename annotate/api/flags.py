"""Flags: annotators set them, admins read them and say that they are dealt with."""

from __future__ import annotations

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.queue import QueueEndpoint
from annotate.models import Flag, Project
from annotate.selectors.flags import flags_of
from annotate.services.flagging import MAX_NOTE, flag_comparison, settle_flag
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Nothing, Strict
from rlhf_platform.accounts.models import Role

ADMINS = {"GET": Role.ADMIN, "HEAD": Role.ADMIN}


class FlagIn(Strict):
    kind = serializers.ChoiceField(Flag.Kind.choices)
    note = serializers.CharField(max_length=MAX_NOTE, allow_blank=True, default="")


class FlaggedOut(serializers.ModelSerializer[Flag]):
    """What the person who flags gets back."""

    class Meta:
        model = Flag
        fields = ("id", "kind", "note", "created_at")
        read_only_fields = fields


class FlagOut(serializers.ModelSerializer[Flag]):
    annotator = serializers.CharField()

    class Meta:
        model = Flag
        fields = (
            "id", "comparison", "annotator", "kind", "note", "created_at", "settled_at",
        )  # fmt: skip
        read_only_fields = fields


class Flagging(QueueEndpoint):
    @describe(
        "flag_comparison",
        "Tell the admins what is wrong with a comparison; the same kind again is the same flag",
        body=FlagIn,
        gives=FlaggedOut,
        status=201,
        problems=[404],
    )
    def post(self, request: Request, pk: int) -> Response:
        assignment, asked = self.mine(pk), self.body(FlagIn)
        flag = flag_comparison(assignment=assignment, annotator=self.annotator(), **asked)
        return Response(FlaggedOut(flag).data, status=status.HTTP_201_CREATED)


class Flags(Endpoint):
    roles = ADMINS

    class Query(Strict):
        settled = serializers.BooleanField(default=False)

    @describe(
        "list_flags",
        "A project's flags that wait for an admin, the newest first",
        gives=FlagOut(many=True),
        query=Query,
        problems=[404],
    )
    def get(self, request: Request, slug: str) -> Response:
        project = self.find(Project.objects.all(), slug=slug)
        return self.page(flags_of(project=project, **self.filters(self.Query)), FlagOut)


class Settling(Endpoint):
    roles = {"POST": Role.ADMIN}

    @describe(
        "settle_flag", "Note that a flag is dealt with", body=Nothing, gives=FlagOut,
        problems=[404],
    )  # fmt: skip
    def post(self, request: Request, pk: int) -> Response:
        self.body(Nothing)
        flag = self.find(Flag.objects.select_related("annotator__user"), pk=pk)
        return Response(FlagOut(settle_flag(flag=flag, actor=self.person)).data)
