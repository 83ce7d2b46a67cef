"""Bases in the registry, and where a version's weights are."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings

from rlhf_platform.accounts.models import Workspace
from training.engine.config import BaseConfig
from training.engine.errors import ConfigError
from training.engine.packaged import NAMES, PACKAGED
from training.errors import UnknownBase
from training.models import ModelVersion

#: OWNER/NAME as the Hub spells them; neither begins with a dot.
HUB_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_-][A-Za-z0-9._-]{0,95}")


def base_version(
    *,
    workspace: Workspace,
    source: str = "demo",
    quantization: str = "nf4",
    dtype: str = "float32",
) -> ModelVersion:
    """The version that stands for a base in this workspace, made once.

    Raises UnknownBase for a source that cannot be one (a local path that does not exist). Whether a
    Hub id can be reached is only known when a run loads it.
    """
    looks_local = source.startswith((".", "/", "~")) or source.endswith(".gguf")
    if looks_local and not Path(source).expanduser().exists():
        raise UnknownBase(
            f"there is no base model at {source}; give {NAMES}, a Hub id such as "
            "HuggingFaceTB/SmolLM2-135M-Instruct, a model folder or a .gguf file"
        )
    if not looks_local and source not in PACKAGED and (source.count("/") != 1 or " " in source):
        raise UnknownBase(
            f"{source!r} is not a base model; give {NAMES}, a Hub id such as "
            "HuggingFaceTB/SmolLM2-135M-Instruct, a model folder or a .gguf file"
        )
    try:
        spec = BaseConfig(source=source, quantization=quantization, dtype=dtype)
    except ConfigError as error:
        raise UnknownBase(str(error)) from error
    base = {
        "source": spec.source if not looks_local else str(Path(source).expanduser().resolve()),
        "revision": spec.revision,
        "dtype": spec.dtype,
        "quantization": spec.quantization,
        "double_quant": spec.double_quant,
    }
    text = json.dumps(base, sort_keys=True, separators=(",", ":"))
    name = PACKAGED[source].title if source in PACKAGED else Path(source).name
    version, _ = ModelVersion.objects.get_or_create(
        workspace=workspace,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        defaults={
            "kind": ModelVersion.Kind.BASE,
            "name": f"{name} ({quantization})" if quantization != "none" else name,
            "base": base,
        },
    )
    return version


def hub_base_version(
    *, workspace: Workspace, source: str, quantization: str, dtype: str
) -> ModelVersion:
    """`base_version` for somebody who is not at this machine: no path on it may be named.

    Raises UnknownBase.
    """
    if source not in PACKAGED and not HUB_ID.fullmatch(source):
        raise UnknownBase(
            f"{source!r} is neither {' nor '.join(PACKAGED)} nor a Hub id such as "
            "HuggingFaceTB/SmolLM2-135M-Instruct; "
            "a folder on the server is registered there: manage.py sample --version FOLDER …"
        )
    return base_version(workspace=workspace, source=source, quantization=quantization, dtype=dtype)


def registered_base(*, workspace: Workspace, source: str) -> ModelVersion | None:
    """The newest base of this name in a workspace."""
    bases = ModelVersion.objects.filter(workspace=workspace, kind=ModelVersion.Kind.BASE)
    return bases.filter(base__source=source).order_by("-pk").first()


def named_base(*, workspace: Workspace, source: str) -> ModelVersion:
    """The base of this name, registered as it is stored where it is new here.

    Raises UnknownBase as `hub_base_version` does.
    """
    found = registered_base(workspace=workspace, source=source)
    return found or hub_base_version(
        workspace=workspace, source=source, quantization="none", dtype="float32"
    )


def hub_id_of(base_config: Mapping[str, Any]) -> str:
    """The Hub id that a model's config.json says it came from; empty where it says none."""
    name = str(base_config.get("_name_or_path") or "")
    return name if HUB_ID.fullmatch(name) else ""


def adapter_folder(version: ModelVersion) -> str | None:
    """The absolute path of a version's adapter; None for a base."""
    if not version.adapter_path:
        return None
    return str(Path(settings.RUNS_DIR) / version.adapter_path)
