"""Machines that judge a project: registering, letting them judge, accepting their calibration."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.models import Calibration, JudgeVersion, Project
from annotate.selectors.judges import judges_of
from annotate.services.machine_judging import accept_calibration
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Strict
from rlhf_platform.accounts.models import Role
from training.api.jobs import JobOut
from training.engine.config_judge import HOW, RUBRIC
from training.models import Job, ModelVersion
from training.selectors.judgings import cost_of, judge_standing, judgings_in, model_words
from training.services.judging_jobs import judgings, queue_judging
from training.services.machine_judging import judge_at


class JudgeOut(serializers.ModelSerializer[JudgeVersion]):
    model = serializers.SerializerMethodField(help_text="What is asked, in words")
    how = serializers.ChoiceField(HOW, source="settings.how")
    max_new_tokens = serializers.IntegerField(source="settings.max_new_tokens")
    judged = serializers.IntegerField(source="n_judged", help_text="In this project, as the rest")
    flipped = serializers.IntegerField(source="n_flipped", help_text="Followed the order: ties")
    failed = serializers.IntegerField(source="n_failed", help_text="Without a verdict")
    tokens = serializers.IntegerField(source="n_tokens")
    accepted = serializers.BooleanField(help_text="Whether snapshots of this project may use it")

    class Meta:
        model = JudgeVersion
        fields = (
            "id", "name", "version", "model", "how", "max_new_tokens", "rubric", "digest", "judged",
            "flipped", "failed", "tokens", "accepted", "created_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_model(self, judge: JudgeVersion) -> str:
        return model_words(judge)


class FigureOut(serializers.Serializer[Any]):
    """A figure with its 95 % interval, which resamples whole prompts."""

    name = serializers.CharField()
    meaning = serializers.SerializerMethodField()
    value = serializers.FloatField(source="figure.value", allow_null=True)
    low = serializers.FloatField(source="figure.low", allow_null=True)
    high = serializers.FloatField(source="figure.high", allow_null=True)
    n = serializers.IntegerField(source="figure.n")
    biased = serializers.BooleanField(help_text="The interval leaves out what no bias would give")

    def get_meaning(self, line: Any) -> str:
        return f"{line.title}, {line.meaning}"


class AcceptedOut(serializers.ModelSerializer[Calibration]):
    by = serializers.CharField(source="accepted_by", allow_null=True)

    class Meta:
        model = Calibration
        fields = ("n", "reason", "by", "created_at")
        read_only_fields = fields


class JudgeDetailOut(JudgeOut):
    cost = serializers.FloatField(help_text="By the prices that its jobs were given")
    figures = FigureOut(many=True, help_text="Against people, as it stands now")
    n = serializers.IntegerField(help_text="Comparisons that it and people have judged")
    wanted = serializers.IntegerField(help_text="How many an acceptance needs")
    calibration = AcceptedOut(allow_null=True, help_text="The newest that an admin accepted")

    class Meta(JudgeOut.Meta):
        fields = (  # type: ignore[assignment]
            *JudgeOut.Meta.fields, "cost", "figures", "n", "wanted", "calibration",
        )  # fmt: skip
        read_only_fields = fields  # type: ignore[assignment]


class JudgeIn(Strict):
    name = serializers.SlugField(max_length=50)
    rubric = serializers.CharField(max_length=20_000, default=RUBRIC, trim_whitespace=False)
    version = serializers.IntegerField(
        min_value=1, allow_null=True, default=None, help_text="A model version that judges here"
    )
    url = serializers.CharField(
        max_length=500,
        default="",
        allow_blank=True,
        help_text="Or an OpenAI-compatible server's address, up to and including /v1",
    )
    model = serializers.CharField(
        max_length=200, default="", allow_blank=True, help_text="The model's name there"
    )
    how = serializers.ChoiceField(HOW, default="verdict")
    max_new_tokens = serializers.IntegerField(min_value=1, max_value=100_000, default=256)


class BoundsIn(Strict):
    """What bounds a judging; of a model held here max_tokens_total alone."""

    requests_per_minute = serializers.FloatField(min_value=0, required=False)
    max_tokens_total = serializers.IntegerField(min_value=1, required=False)
    price_in = serializers.FloatField(
        min_value=0, required=False, help_text="Of a million tokens asked"
    )
    price_out = serializers.FloatField(
        min_value=0, required=False, help_text="Of a million tokens answered"
    )
    max_cost = serializers.FloatField(min_value=0, required=False)
    timeout_s = serializers.FloatField(min_value=0.1, max_value=3600, required=False)
    retries = serializers.IntegerField(min_value=0, max_value=100, required=False)


class JudgingIn(Strict):
    limit = serializers.IntegerField(
        min_value=1, max_value=1_000_000, allow_null=True, default=None
    )
    by_people = serializers.BooleanField(
        default=False, help_text="Only what people have judged, for a calibration"
    )
    key = serializers.CharField(
        max_length=100,
        default="",
        allow_blank=True,
        help_text="Name of the variable of the server's environment that holds the key "
        "(JUDGE_KEYS); never the key",
    )
    bounds = BoundsIn(required=False)


class AcceptIn(Strict):
    reason = serializers.CharField(max_length=4000, help_text="Why this agreement is enough")


class OfProject(Endpoint):
    """What is under a project of the workspace."""

    def project(self, slug: str) -> Project:
        return self.find(Project.objects.all(), slug=slug)

    def judge(self, project: Project, pk: int) -> JudgeVersion:
        return self.find(judges_of(project=project), pk=pk)

    def shown(self, project: Project, pk: int, code: int = status.HTTP_200_OK) -> Response:
        found: Any = self.judge(project, pk)
        standing = judge_standing(judge=found, project=project)
        found.figures, found.n, found.wanted = standing.lines, standing.n, standing.wanted
        found.calibration = standing.accepted
        found.cost = cost_of(judgings_in(project=project).get(pk, []))
        return Response(JudgeDetailOut(found).data, status=code)


class Judges(OfProject):
    @describe(
        "list_judges",
        "The workspace's machine judges, with what they did in this project",
        gives=JudgeOut(many=True),
        query=Strict,
        problems=[404],
    )
    def get(self, request: Request, slug: str) -> Response:
        project = self.project(slug)
        self.filters(Strict)
        return self.page(judges_of(project=project), JudgeOut)

    @describe(
        "register_judge",
        "A model and a rubric as a judge; what was registered alike before is that version",
        body=JudgeIn,
        gives=JudgeDetailOut,
        status=201,
        problems=[404, 409],
    )
    def post(self, request: Request, slug: str) -> Response:
        project, asked = self.project(slug), self.body(JudgeIn)
        version = asked.pop("version")
        if version is not None:
            version = self.named("version", ModelVersion.objects.all(), pk=version)
        judge = judge_at(project=project, version=version, actor=self.person, **asked)
        return self.shown(project, judge.pk, status.HTTP_201_CREATED)


class OneJudge(OfProject):
    @describe(
        "get_judge", "One judge against people in this project", gives=JudgeDetailOut,
        problems=[404],
    )  # fmt: skip
    def get(self, request: Request, slug: str, pk: int) -> Response:
        return self.shown(self.project(slug), pk)


class Judgings(OfProject):
    @describe(
        "list_judgings", "The jobs of a judge in this project, newest first",
        gives=JobOut(many=True), query=Strict, problems=[404],
    )  # fmt: skip
    def get(self, request: Request, slug: str, pk: int) -> Response:
        project = self.project(slug)
        judge = self.judge(project, pk)
        self.filters(Strict)
        return self.page(judgings(judge=judge, project=project), JobOut)

    @describe(
        "launch_judging",
        "Queue a judging of what this version has not judged; the job that waits or runs where the "
        "same was asked before",
        body=JudgingIn,
        gives=JobOut,
        status=201,
        problems=[404],
    )
    def post(self, request: Request, slug: str, pk: int) -> Response:
        project = self.project(slug)
        judge = self.judge(project, pk)
        job: Job = queue_judging(judge=judge, project=project, **self.body(JudgingIn))
        return Response(JobOut(job).data, status=status.HTTP_201_CREATED)


class Accept(OfProject):
    role = Role.ADMIN

    @describe(
        "accept_judge",
        "Let snapshots of this project use what this version said, on the numbers of now",
        body=AcceptIn,
        gives=JudgeDetailOut,
        problems=[404, 409],
    )
    def post(self, request: Request, slug: str, pk: int) -> Response:
        project = self.project(slug)
        judge = self.judge(project, pk)
        accept_calibration(judge=judge, project=project, actor=self.person, **self.body(AcceptIn))
        return self.shown(project, pk)
