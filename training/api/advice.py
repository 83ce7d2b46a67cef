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
from training.engine.advisor import advise
from training.engine.advisor_case import case_from_dict
from training.engine.errors import EngineError


class AdviceIn(Strict):
    case = SettingsField(
        help_text='Only task is needed: {"task": "style", "labelled_examples": 800, …}; see the '
        "help page on choosing an adaptation. base_config is the content of a base's config.json"
    )


@extend_schema_field(OpenApiTypes.OBJECT)
class OptionField(serializers.DictField):
    """name, title, score, possible, fits, reasons, blocks, assumes, stages, nearest_change."""


class AdviceOut(serializers.Serializer[Any]):
    case = serializers.DictField()
    first = serializers.CharField(allow_null=True, help_text="null where nothing can be done")
    options = serializers.ListField(child=OptionField())
    notes = serializers.ListField(child=serializers.CharField())


class Advising(Endpoint):
    @describe(
        "advise_on_case",
        "The ways to adapt a model to a case, the best first, with reasons and runs to start from",
        body=AdviceIn,
        gives=AdviceOut,
    )
    def post(self, request: Request) -> Response:
        try:
            found = advise(case_from_dict(self.body(AdviceIn)["case"]))
        except EngineError as error:
            raise ValidationError({"case": [f"{error}."]}) from error
        return Response(AdviceOut(found.as_json()).data)
