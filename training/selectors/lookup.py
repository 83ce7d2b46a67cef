"""Finding versions by the ids people type. Every miss says what exists instead."""

from __future__ import annotations

from training.errors import UnknownVersion
from training.models import ModelVersion


def find_version(pk: int) -> ModelVersion:
    version = ModelVersion.objects.filter(pk=pk).first()
    if version is None:
        trained = ModelVersion.objects.exclude(kind=ModelVersion.Kind.BASE).order_by("-pk")[:5]
        known = ", ".join(f"{found.pk} ({found})" for found in trained) or "none yet"
        raise UnknownVersion(f"there is no model version {pk} (latest: {known})")
    return version
