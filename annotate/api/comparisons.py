"""What a project's queue holds: read by researchers, reserved for one person by admins."""

from __future__ import annotations

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.queue import MessageOut
from annotate.formats.topics import MAX_TOPIC, MAX_TOPICS
from annotate.models import Comparison, Project
from annotate.selectors.comparisons import FILTERS, browse_comparisons
from annotate.services.reserving import reserve_comparison
from annotate.services.serving import annotator_for
from annotate.services.topics import set_topics
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Strict
from rlhf_platform.accounts.models import Role


class ComparisonOut(serializers.ModelSerializer[Comparison]):
    prompt = MessageOut(many=True, source="prompt.messages")
    topics = serializers.SerializerMethodField()
    slots = serializers.IntegerField(help_text="Judgments still wanted and not leased")
    reserved_for = serializers.EmailField(
        source="reserved_for.user.email",
        default=None,
        allow_null=True,
        help_text="The only person who is served it; null for everybody",
    )

    class Meta:
        model = Comparison
        fields = (
            "id", "prompt", "topics", "origin", "origin_reference", "priority", "slots",
            "reserved_for", "created_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_topics(self, comparison: Comparison) -> list[str]:
        return [topic.name for topic in comparison.prompt.topics.all()]


class ComparisonPatch(Strict):
    """What is left out stays as it is."""

    reserved_for = serializers.EmailField(
        required=False,
        allow_null=True,
        help_text="The address of a member; null to serve it to everybody again",
    )
    topics = serializers.ListField(
        child=serializers.CharField(max_length=MAX_TOPIC),
        max_length=MAX_TOPICS,
        required=False,
        help_text="What its prompt is about, in every project: all of them",
    )


class Comparisons(Endpoint):
    class Query(Strict):
        show = serializers.ChoiceField(list(FILTERS), default="all")
        topic = serializers.CharField(max_length=MAX_TOPIC, default="")

    @describe(
        "list_comparisons",
        "What the project's queue holds, the newest first",
        gives=ComparisonOut(many=True),
        query=Query,
        problems=[404],
    )
    def get(self, request: Request, slug: str) -> Response:
        project = self.find(Project.objects.all(), slug=slug)
        return self.page(
            browse_comparisons(project=project, **self.filters(self.Query)), ComparisonOut
        )


class OneComparison(Endpoint):
    roles = {"PATCH": Role.ADMIN}

    @describe("get_comparison", "One of them", gives=ComparisonOut, problems=[404])
    def get(self, request: Request, slug: str, pk: int) -> Response:
        return Response(ComparisonOut(self.one(slug, pk)).data)

    @describe(
        "update_comparison",
        "Reserve it for one person or release it; say what its prompt is about",
        body=ComparisonPatch,
        gives=ComparisonOut,
        problems=[404],
    )
    def patch(self, request: Request, slug: str, pk: int) -> Response:
        found, asked = self.one(slug, pk), self.body(ComparisonPatch)
        if "reserved_for" in asked:
            person, address = None, asked["reserved_for"]
            if address is not None:
                member = self.member("reserved_for", address)
                person = annotator_for(user=member, workspace=self.workspace)
            reserve_comparison(comparison=found, annotator=person)
        if "topics" in asked:
            set_topics(prompt=found.prompt, topics=asked["topics"])
        return Response(ComparisonOut(self.one(slug, pk)).data)

    def one(self, slug: str, pk: int) -> Comparison:
        project = self.find(Project.objects.all(), slug=slug)
        rows = Comparison.objects.filter(project=project)
        return self.find(rows.select_related("project", "prompt", "reserved_for__user"), pk=pk)
