"""Putting what a run made into the registry, addressed by its bytes."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from training.engine.files import adapter_digest
from training.engine.hashes import sha256_of_model
from training.models import ModelVersion, Round, Run


def name_of(method: str) -> str:
    """What a method's versions are called."""
    return {"reward": "reward model"}.get(method, method.upper())


def register_version(*, run: Run, round: Round, kind: str) -> ModelVersion:
    """The version of what a run trained; the earlier one where the same bytes were made before."""
    result = run.result or {}
    whole = result.get("model") is not None
    path = f"{run.folder}/{result['model' if whole else 'adapter']}"
    folder = Path(settings.RUNS_DIR) / path
    base = run.config["base"]
    version, _ = ModelVersion.objects.get_or_create(
        workspace=run.workspace,
        digest=sha256_of_model(folder, folder.parent) if whole else adapter_digest(folder),
        defaults={
            "project": round.project,
            "kind": kind,
            "name": f"{round.project.slug} round {round.number} {name_of(run.method)}"
            + (" (full)" if whole else ""),
            # what later runs load: the folder itself, which a new adapter may be trained on
            "base": {**base, "source": str(folder), "revision": None} if whole else base,
            "parent": run.version,
            "run": run,
            "model_path" if whole else "adapter_path": path,
            "metrics": result.get("metrics", {}),
        },
    )
    return version
