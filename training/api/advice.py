"""Which way to adapt a model, as JSON."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Strict
from training.api.settings_field import SettingsField
from training.engine.advisor import Advice
from training.engine.errors import EngineError
from training.errors import CannotLaunch
from training.models import Job, ModelVersion, TextSet
from training.selectors.advice import advise_on
from training.services.measuring import measured_distance, measuring_source, queue_measurement


class AdviceIn(Strict):
    case = SettingsField(
        help_text='Only task is needed: {"task": "style", "labelled_examples": 800, …}; see the '
        "help page on choosing an adaptation. base_config is the content of a base's config.json"
    )
    version = serializers.IntegerField(
        required=False, min_value=1, help_text="A base of the workspace, instead of case.base"
    )
    text = serializers.CharField(
        required=False,
        max_length=2_000_000,
        trim_whitespace=False,
        help_text="Of your domain: a job measures its distance under the base",
    )
    text_set = serializers.CharField(
        required=False, max_length=50, help_text="Or a text set by name: its latest version"
    )
    measured = serializers.IntegerField(
        required=False, min_value=1, help_text="An earlier answer's job, once it has succeeded"
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        given = [name for name in ("text", "text_set", "measured") if name in attrs]
        if len(given) > 1:
            raise ValidationError({given[1]: ["Give one of text, text_set and measured."]})
        return attrs


@extend_schema_field(OpenApiTypes.OBJECT)
class OptionField(serializers.DictField):
    """name, title, score, possible, fits, reasons, blocks, assumes, stages, nearest_change."""


@extend_schema_field(OpenApiTypes.OBJECT)
class DistanceField(serializers.DictField):
    """distance, base, own, general, signals, notes."""


class AdviceOut(serializers.Serializer[Any]):
    case = serializers.DictField()
    first = serializers.CharField(allow_null=True, help_text="null where nothing can be done")
    options = serializers.ListField(child=OptionField())
    notes = serializers.ListField(child=serializers.CharField())
    measuring = serializers.IntegerField(
        allow_null=True, help_text="The job that measures the text; ask again with it as measured"
    )
    measured = DistanceField(allow_null=True, help_text="What the job found")


class Advising(Endpoint):
    @describe(
        "advise_on_case",
        "The ways to adapt a model to a case, the best first, with reasons and runs to start from",
        body=AdviceIn,
        gives=AdviceOut,
    )
    def post(self, request: Request) -> Response:
        asked = self.body(AdviceIn)
        case = dict(asked["case"])
        version = None
        if "version" in asked:
            bases = ModelVersion.objects.filter(kind=ModelVersion.Kind.BASE)
            version = self.named("version", bases, pk=asked["version"])
            case["base"] = version.base["source"]
        distance = self.distance(asked)
        try:
            found = advise_on(case, version=version, distance=distance)
        except EngineError as error:
            raise ValidationError({"case": [f"{error}."]}) from error
        more = {"measuring": self.measuring(asked, version, found), "measured": distance}
        return Response(AdviceOut(found.as_json() | more).data)

    def distance(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """What an earlier measurement found."""
        if "measured" not in asked:
            return None
        jobs = Job.objects.filter(kind=Job.Kind.MEASURE)
        job = self.named("measured", jobs, pk=asked["measured"])
        found = measured_distance(job)
        if found is None:
            raise ValidationError(
                {"measured": [f"Job {job.pk} is {job.state}. {job.detail}".strip()]}
            )
        return found

    def measuring(
        self, asked: dict[str, Any], version: ModelVersion | None, found: Advice
    ) -> int | None:
        """The job that was queued for a text."""
        text_set = None
        if "text_set" in asked:
            newest = TextSet.objects.order_by("-version")
            text_set = self.named("text_set", newest, name=asked["text_set"])
        elif "text" not in asked:
            return None
        pasted = found.case.shape is not None and asked["case"].get("base_config") is not None
        source = measuring_source(version=version, base="" if pasted else found.case.base)
        try:
            return queue_measurement(
                workspace=self.workspace,
                source=source,
                text=asked.get("text", ""),
                text_set=text_set,
            ).pk
        except CannotLaunch as error:
            raise ValidationError({"text": [f"{error}."]}) from error
