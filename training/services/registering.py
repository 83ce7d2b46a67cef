"""Putting what a run made into the registry, addressed by its bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from django.conf import settings

from training.engine.files import sha256_of_file
from training.models import ModelVersion, Round, Run

#: The files that are the model; tokenizers and cards beside them may be rewritten.
WEIGHTS = ("adapter_config.json", "adapter_model.safetensors")


def adapter_digest(folder: Path) -> str:
    """SHA-256 over the names and hashes of an adapter's own files."""
    digest = hashlib.sha256()
    for name in WEIGHTS:
        digest.update(f"{name} {sha256_of_file(folder / name)}\n".encode())
    return digest.hexdigest()


def register_version(*, run: Run, round: Round, kind: str) -> ModelVersion:
    """The version of a run's adapter; the earlier one where the same bytes were made before."""
    result = run.result or {}
    path = f"{run.folder}/{result['adapter']}"
    names = {"sft": "SFT", "reward": "reward model", "dpo": "DPO", "ppo": "PPO"}
    version, _ = ModelVersion.objects.get_or_create(
        workspace=run.workspace,
        digest=adapter_digest(Path(settings.RUNS_DIR) / path),
        defaults={
            "project": round.project,
            "kind": kind,
            "name": f"{round.project.slug} round {round.number} {names[run.method]}",
            "base": round.reference.base,
            "parent": run.version,
            "run": run,
            "adapter_path": path,
            "metrics": result.get("metrics", {}),
        },
    )
    return version
