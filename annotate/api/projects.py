"""Projects: their settings, and how far and how well they are judged."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.models import Project
from annotate.selectors.consistency import consistency_of
from annotate.selectors.progress import queue_progress
from annotate.selectors.projects import projects_for
from annotate.selectors.quality import position_share, project_agreement
from annotate.selectors.throughput import annotator_throughput
from annotate.services.labels import MAX_DEFINITION, MAX_NAME
from annotate.services.projects import (
    MAX_LEASE_S,
    MAX_OVERLAP,
    MIN_LEASE_S,
    create_project,
    update_project,
)
from annotate.services.questions import QUESTIONS, STRENGTHS, WHETHER
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Strict
from rlhf_platform.accounts.models import Role

READERS = {"GET": Role.ANNOTATOR, "HEAD": Role.ANNOTATOR}
MAX_GUIDELINES = 100_000


class LabelOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    definition = serializers.CharField(allow_blank=True)
    key = serializers.CharField(allow_blank=True, help_text="The key that chooses it on the page")


class LabelIn(Strict):
    name = serializers.CharField(max_length=MAX_NAME)
    definition = serializers.CharField(max_length=MAX_DEFINITION, allow_blank=True, default="")
    key = serializers.CharField(
        max_length=1, allow_blank=True, default="", help_text="Empty: the next free one"
    )


class NamedIn(Strict):
    name = serializers.CharField(max_length=MAX_NAME)
    definition = serializers.CharField(max_length=MAX_DEFINITION, allow_blank=True, default="")


class ScaleIn(NamedIn):
    low = serializers.IntegerField()
    high = serializers.IntegerField()


class WhenIn(Strict):
    answer = serializers.ListField(child=serializers.CharField(), min_length=1)


class ConditionIn(Strict):
    show = serializers.ChoiceField(QUESTIONS)
    when = WhenIn()


class FormIn(Strict):
    """What is asked beside the answer; what is left out is not asked."""

    strength = serializers.ChoiceField(STRENGTHS, required=False)
    aspects = NamedIn(many=True, required=False)
    ratings = ScaleIn(many=True, required=False, help_text="Of each response")
    reasons = serializers.ListField(child=serializers.CharField(), required=False)
    rationale = serializers.ChoiceField(WHETHER, required=False)
    rationale_min = serializers.IntegerField(min_value=0, required=False)
    rewrite = serializers.ChoiceField(WHETHER, required=False)
    spans = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="Categories to mark"
    )
    known_model = serializers.BooleanField(required=False)
    conditions = ConditionIn(many=True, required=False)


class FormOut(FormIn):
    """The questions of the version; a key that is absent is not asked."""

    def to_representation(self, instance: Any) -> Any:
        return dict(instance)


class ProjectOut(serializers.ModelSerializer[Project]):
    guideline_version = serializers.IntegerField(allow_null=True, read_only=True)
    guidelines = serializers.CharField(source="guideline_text", allow_null=True, read_only=True)
    labels = LabelOut(many=True, source="guideline_labels", read_only=True)
    form = FormOut(source="guideline_form", read_only=True)

    class Meta:
        model = Project
        fields = (
            "slug", "name", "kind", "state", "overlap", "allow_tie", "allow_both_bad", "lease_s",
            "guideline_version", "guidelines", "labels", "form", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class ProjectPatch(Strict):
    """What is left out stays as it is."""

    name = serializers.CharField(max_length=120, required=False)
    state = serializers.ChoiceField(Project.State.choices, required=False)
    overlap = serializers.IntegerField(min_value=1, max_value=MAX_OVERLAP, required=False)
    allow_tie = serializers.BooleanField(required=False)
    allow_both_bad = serializers.BooleanField(required=False)
    lease_s = serializers.IntegerField(min_value=MIN_LEASE_S, max_value=MAX_LEASE_S, required=False)
    guidelines = serializers.CharField(
        max_length=MAX_GUIDELINES,
        allow_blank=True,
        required=False,
        trim_whitespace=False,
        help_text="Another text becomes the next version",
    )
    labels = LabelIn(
        many=True,
        required=False,
        help_text="Of a project of labels: the whole list; another one becomes the next version",
    )
    form = FormIn(required=False, help_text="The whole form; another one becomes the next version")


class ProjectIn(ProjectPatch):
    """Fields with defaults may be left out; a new project is open."""

    slug = serializers.SlugField(max_length=50, help_text="Short name, unique in the workspace")
    name = serializers.CharField(max_length=120)
    kind = serializers.ChoiceField(Project.Kind.choices, default=Project.Kind.COMPARISONS)
    state = None  # type: ignore[assignment]


class Projects(Endpoint):
    roles = READERS

    class Query(Strict):
        state = serializers.ChoiceField(Project.State.choices, required=False)

    @describe(
        "list_projects",
        "The projects of the workspace (annotators: the open ones)",
        gives=ProjectOut(many=True),
        query=Query,
    )
    def get(self, request: Request) -> Response:
        rows = projects_for(self.membership).filter(**self.filters(self.Query))
        return self.page(rows, ProjectOut)

    @describe(
        "create_project", "Make a project", body=ProjectIn, gives=ProjectOut, status=201,
        problems=[409],
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        made = create_project(workspace=self.workspace, actor=self.person, **self.body(ProjectIn))
        return Response(shown(self, made.slug), status=status.HTTP_201_CREATED)


class OneProject(Endpoint):
    roles = READERS

    @describe("get_project", "One project", gives=ProjectOut, problems=[404])
    def get(self, request: Request, slug: str) -> Response:
        return Response(shown(self, slug))

    @describe(
        "update_project", "Change a project's settings", body=ProjectPatch, gives=ProjectOut,
        problems=[404, 409],
    )  # fmt: skip
    def patch(self, request: Request, slug: str) -> Response:
        update_project(
            project=self.find(Project.objects.all(), slug=slug), **self.body(ProjectPatch)
        )
        return Response(shown(self, slug))


def shown(endpoint: Endpoint, slug: str) -> Any:
    return ProjectOut(endpoint.find(projects_for(endpoint.membership), slug=slug)).data


class ProgressOut(serializers.Serializer[Any]):
    comparisons = serializers.IntegerField()
    complete = serializers.IntegerField(help_text="Comparisons that need nobody any more")
    judgments = serializers.IntegerField()
    open_slots = serializers.IntegerField(help_text="Judgments still wanted and not leased")
    live_leases = serializers.IntegerField()


class ProjectProgress(Endpoint):
    @describe("get_progress", "How far the queue is", gives=ProgressOut, problems=[404])
    def get(self, request: Request, slug: str) -> Response:
        project = self.find(Project.objects.all(), slug=slug)
        return Response(ProgressOut(queue_progress(project=project)).data)


class ShareOut(serializers.Serializer[Any]):
    left = serializers.FloatField(allow_null=True, help_text="null while n is 0")
    n = serializers.IntegerField()
    low = serializers.FloatField()
    high = serializers.FloatField()


class ConsistencyOut(serializers.Serializer[Any]):
    """Of comparisons shown to one person twice, sides swapped; intervals are Wilson's, 95 %."""

    annotator = serializers.CharField(allow_null=True, help_text="null for everybody together")
    n = serializers.IntegerField(help_text="Repeats that were judged")
    same = serializers.IntegerField(help_text="That got the same answer")
    share = serializers.FloatField(allow_null=True)
    low = serializers.FloatField()
    high = serializers.FloatField()
    flips = serializers.IntegerField(help_text="That took the same place on the screen twice")
    left = serializers.IntegerField(help_text="Of these the left one")
    left_share = serializers.FloatField(allow_null=True, help_text="0.5 is no preference")
    left_low = serializers.FloatField()
    left_high = serializers.FloatField()


class AgreementOut(serializers.Serializer[Any]):
    alpha = serializers.FloatField(allow_null=True, help_text="Krippendorff's; null with a reason")
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    n_comparisons = serializers.IntegerField()
    n_judgments = serializers.IntegerField()
    n_annotators = serializers.IntegerField()
    reason = serializers.CharField(allow_blank=True)
    left_share = ShareOut(help_text="How often the left answer was preferred")
    consistency = ConsistencyOut(many=True, help_text="Empty while nothing was repeated")


class ProjectAgreement(Endpoint):
    @describe("get_agreement", "Can the labels be trusted?", gives=AgreementOut, problems=[404])
    def get(self, request: Request, slug: str) -> Response:
        project = self.find(Project.objects.all(), slug=slug)
        found = {
            **vars(project_agreement(project=project)),
            "left_share": position_share(project=project),
            "consistency": consistency_of(project=project),
        }
        return Response(AgreementOut(found).data)


class PaceOut(serializers.Serializer[Any]):
    annotator = serializers.CharField()
    judgments = serializers.IntegerField()
    active_s = serializers.FloatField()
    judgments_per_hour = serializers.FloatField(allow_null=True)
    median_active_s = serializers.FloatField(allow_null=True)


class PacesOut(serializers.Serializer[Any]):
    results = PaceOut(many=True)


class ProjectThroughput(Endpoint):
    @describe("get_throughput", "Who judges how fast", gives=PacesOut, problems=[404])
    def get(self, request: Request, slug: str) -> Response:
        project = self.find(Project.objects.all(), slug=slug)
        return Response(PacesOut({"results": annotator_throughput(project=project)}).data)
