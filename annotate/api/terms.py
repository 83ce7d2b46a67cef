"""On what terms people judge in a project, as admins set them."""

from __future__ import annotations

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.formats.topics import MAX_TOPIC, MAX_TOPICS
from annotate.models import Project
from annotate.services.participation import (
    MAX_REPEAT,
    MAX_TEXT,
    named_people,
    update_terms,
)
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Strict
from rlhf_platform.accounts.models import Role


class TermsOut(serializers.ModelSerializer[Project]):
    named = serializers.SerializerMethodField()
    topics = serializers.ListField(child=serializers.CharField())

    class Meta:
        model = Project
        fields = (
            "restricted", "named", "quota", "daily_limit", "daily_goal", "repeat_every",
            "repeat_after", "revise_window_h", "unblinded", "topics", "content_warning",
            "consent_text", "consent_version", "blur", "break_minutes",
        )  # fmt: skip
        read_only_fields = fields

    def get_named(self, project: Project) -> list[str]:
        return [person.email for person in named_people(project=project)]


class TermsPatch(Strict):
    """What is left out stays as it is."""

    restricted = serializers.BooleanField(required=False, help_text="Only named people judge")
    named = serializers.ListField(
        child=serializers.EmailField(),
        required=False,
        help_text="Addresses of the members who are named, all of them",
    )
    quota = serializers.IntegerField(min_value=1, required=False, allow_null=True)
    daily_limit = serializers.IntegerField(min_value=1, required=False, allow_null=True)
    daily_goal = serializers.IntegerField(min_value=1, required=False, allow_null=True)
    repeat_every = serializers.IntegerField(
        min_value=2,
        max_value=MAX_REPEAT,
        required=False,
        allow_null=True,
        help_text="About one in so many comparisons is one the same person judged before, sides "
        "swapped; null for never",
    )
    repeat_after = serializers.IntegerField(
        min_value=1, max_value=MAX_REPEAT, required=False, help_text="Others between the two"
    )
    revise_window_h = serializers.IntegerField(min_value=0, max_value=24 * 365, required=False)
    unblinded = serializers.BooleanField(required=False)
    topics = serializers.ListField(
        child=serializers.CharField(max_length=MAX_TOPIC), max_length=MAX_TOPICS, required=False
    )
    content_warning = serializers.CharField(max_length=MAX_TEXT, allow_blank=True, required=False)
    consent_text = serializers.CharField(max_length=MAX_TEXT, allow_blank=True, required=False)
    blur = serializers.BooleanField(required=False)
    break_minutes = serializers.IntegerField(
        min_value=5, max_value=600, required=False, allow_null=True
    )


class Terms(Endpoint):
    roles = dict.fromkeys(("GET", "HEAD", "PATCH"), Role.ADMIN)

    @describe("get_terms", "On what terms people judge", gives=TermsOut, problems=[404])
    def get(self, request: Request, slug: str) -> Response:
        return Response(TermsOut(self.find(Project.objects.all(), slug=slug)).data)

    @describe(
        "update_terms",
        "Change who judges, how much, what is repeated, and what they are told first",
        body=TermsPatch,
        gives=TermsOut,
        problems=[404],
    )
    def patch(self, request: Request, slug: str) -> Response:
        project = self.find(Project.objects.all(), slug=slug)
        asked = self.body(TermsPatch)
        if "named" in asked:
            asked["named"] = [self.member("named", address) for address in asked["named"]]
        update_terms(project=project, **asked)
        return Response(TermsOut(project).data)
