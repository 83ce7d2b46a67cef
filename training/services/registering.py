"""Putting what a run made into the registry, addressed by its bytes."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from training.engine.files import adapter_digest
from training.models import ModelVersion, Round, Run


def name_of(method: str) -> str:
    """What a method's versions are called."""
    return {"reward": "reward model"}.get(method, method.upper())


def register_version(*, run: Run, round: Round, kind: str) -> ModelVersion:
    """The version of a run's adapter; the earlier one where the same bytes were made before."""
    result = run.result or {}
    path = f"{run.folder}/{result['adapter']}"
    version, _ = ModelVersion.objects.get_or_create(
        workspace=run.workspace,
        digest=adapter_digest(Path(settings.RUNS_DIR) / path),
        defaults={
            "project": round.project,
            "kind": kind,
            "name": f"{round.project.slug} round {round.number} {name_of(run.method)}",
            "base": round.reference.base,
            "parent": run.version,
            "run": run,
            "adapter_path": path,
            "metrics": result.get("metrics", {}),
        },
    )
    return version
