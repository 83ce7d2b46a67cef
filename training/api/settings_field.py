"""Settings of a stage as nested JSON; what they mean is checked by the engine's own config."""

from __future__ import annotations

import math
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

#: Deep enough for STAGE.SECTION.FIELD and a list in it.
MAX_DEPTH = 6


@extend_schema_field(OpenApiTypes.OBJECT)
class SettingsField(serializers.JSONField):
    """A JSON object of what a database keeps: no NUL, half surrogate, infinity or endless nest."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise serializers.ValidationError("An object was expected.")
        refuse_unstorable(data, MAX_DEPTH)
        return super().to_internal_value(data)


def refuse_unstorable(value: Any, depth: int) -> None:
    if depth < 0:
        raise serializers.ValidationError("Nested too deeply.")
    if isinstance(value, dict):
        for key, inner in value.items():
            refuse_unstorable(key, depth)
            refuse_unstorable(inner, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            refuse_unstorable(inner, depth - 1)
    elif isinstance(value, float) and not math.isfinite(value):  # 1e999 is infinity to Python
        raise serializers.ValidationError("Numbers must be finite.")
    elif isinstance(value, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        raise serializers.ValidationError("NUL characters and lone surrogates cannot be stored.")
