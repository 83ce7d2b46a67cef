"""What a run will need, before it is launched."""

from __future__ import annotations

from dataclasses import asdict
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
from training.engine.config import METHODS, RunConfig, from_dict
from training.engine.errors import BaseModelError, ConfigError, EngineError
from training.engine.packaged import NAMES, PACKAGED
from training.engine.planner import DEVICES, Lengths, plan
from training.engine.planner_shapes import BaseShape, packaged_shape
from training.models import ModelVersion
from training.selectors.calibrations import memory_factor
from training.selectors.plans import GB, run_config, said_shape, version_shape

BASE = f"give version, base_config, or a config whose base.source is {NAMES}"


class PlanIn(Strict):
    config = SettingsField(required=False, help_text="A run's whole config.json; or give method")
    method = serializers.ChoiceField(METHODS, required=False)
    settings = SettingsField(
        required=False, help_text='With method: e.g. {"base": {"quantization": "nf4"}}'
    )
    version = serializers.IntegerField(
        required=False, min_value=1, help_text="Whose base is meant; its weights are not read"
    )
    base_config = SettingsField(
        required=False, help_text="Content of the base's config.json; nothing is downloaded"
    )
    device = serializers.ChoiceField(DEVICES, default="gpu")
    device_gb = serializers.FloatField(
        required=False, min_value=0.001, max_value=1e6, help_text="Of a processor: what is free"
    )
    rows = serializers.IntegerField(required=False, min_value=1, max_value=10**9)
    longest = serializers.IntegerField(
        required=False, min_value=1, max_value=10**7, help_text="Tokens of the longest row"
    )
    mean = serializers.FloatField(required=False, min_value=1, max_value=1e7)
    tflops = serializers.FloatField(required=False, min_value=1e-6, max_value=1e6)
    gb_per_s = serializers.FloatField(required=False, min_value=1e-6, max_value=1e6)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("config" in attrs) == ("method" in attrs):
            raise ValidationError({"config": ["Give either config or method."]})
        if "version" in attrs and "base_config" in attrs:
            raise ValidationError({"base_config": ["Give either version or base_config."]})
        return attrs


class TermOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    bytes = serializers.IntegerField()
    how = serializers.CharField(allow_blank=True)


class FittingOut(serializers.Serializer[Any]):
    settings = serializers.DictField()
    total_bytes = serializers.IntegerField()
    fits = serializers.BooleanField()
    why = serializers.ListField(child=serializers.CharField(), help_text="What the settings do")
    same_result = serializers.BooleanField(help_text="It only takes longer")


@extend_schema_field(OpenApiTypes.OBJECT)
class TimeField(serializers.DictField):
    """Steps, tokens, operations, and seconds where the device's speed was given."""


class CalibrationOut(serializers.Serializer[Any]):
    factor = serializers.FloatField(help_text="Median of measured over planned memory")
    runs = serializers.IntegerField()


class PlanOut(serializers.Serializer[Any]):
    method = serializers.CharField()
    device = serializers.ChoiceField(DEVICES)
    parameters = serializers.IntegerField()
    trained_parameters = serializers.IntegerField()
    tokens_at_once = serializers.IntegerField()
    phase = serializers.CharField(help_text="The phase that needs most; terms are its parts")
    terms = TermOut(many=True)
    phases = serializers.DictField(child=serializers.IntegerField())
    total_bytes = serializers.IntegerField()
    host_bytes = serializers.IntegerField()
    device_bytes = serializers.IntegerField(allow_null=True)
    fits = serializers.BooleanField(allow_null=True)
    change = FittingOut(allow_null=True, help_text="The smallest change that makes it fit")
    tried = FittingOut(many=True)
    time = TimeField()
    calibration = CalibrationOut(
        allow_null=True, help_text="What every part was multiplied by, from this workspace's runs"
    )
    notes = serializers.ListField(child=serializers.CharField())


class Plans(Endpoint):
    @describe(
        "plan_run",
        "Memory and time of a run by part, whether it fits, what would make it; nothing is stored",
        body=PlanIn,
        gives=PlanOut,
    )
    def post(self, request: Request) -> Response:
        asked = self.body(PlanIn)
        version = None
        if "version" in asked:
            version = self.named("version", ModelVersion.objects.all(), pk=asked["version"])
        try:
            shape = given_shape(asked, version)
            config = config_of(asked, version, shape)
            shape = shape or packaged_base(config)
            gigabytes, tflops, read = (asked.get(n) for n in ("device_gb", "tflops", "gb_per_s"))
            factor = memory_factor(
                workspace=self.workspace, method=config.method, device=asked["device"]
            )
            found = plan(
                config,
                shape,
                None if gigabytes is None else int(gigabytes * GB),
                lengths=Lengths(**{n: asked.get(n) for n in ("rows", "longest", "mean")}),
                device=asked["device"],
                flops_per_s=tflops * 1e12 if tflops else None,
                bytes_per_s=read * GB if read else None,
                factor=factor.factor if factor is not None else 1.0,
            )
        except ConfigError as error:
            raise ValidationError(
                {"config" if "config" in asked else "settings": [f"{error}."]}
            ) from error
        except EngineError as error:
            raise ValidationError({"base_config": [f"{error}."]}) from error
        said = None if factor is None else asdict(factor)
        return Response(PlanOut({**found.as_json(), "calibration": said}).data)


def config_of(
    asked: dict[str, Any], version: ModelVersion | None, shape: BaseShape | None
) -> RunConfig:
    if "config" in asked:
        return from_dict(asked["config"])
    base = version.base if version is not None else None
    return run_config(asked["method"], asked.get("settings", {}), base=base, shape=shape)


def given_shape(asked: dict[str, Any], version: ModelVersion | None) -> BaseShape | None:
    """The base's shape where it was given apart from the config. Raises BaseModelError."""
    if "base_config" in asked:
        return said_shape(asked["base_config"])
    return version_shape(version) if version is not None else None


def packaged_base(config: RunConfig) -> BaseShape:
    """The shape of the base that a config names; a path in a stranger's is never opened.

    Raises BaseModelError.
    """
    if config.base.source in PACKAGED:
        return packaged_shape(config.base.source)
    raise BaseModelError(
        f"base.source is {config.base.source!r}, and nothing is read to plan: {BASE}"
    )
