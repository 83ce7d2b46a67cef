"""Putting what a run made into the registry, addressed by its bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from django.conf import settings

from training.engine.files import adapter_digest, sha256_of_file
from training.models import ModelVersion, Round, Run
from training.services.methods import LAUNCHABLE


def name_of(method: str) -> str:
    """What a method's versions are called."""
    named = {"reward": "reward model", "pretrain": "pretrained", "classify": "classifier"}
    return named.get(method, method.upper())


def register_single(*, run: Run) -> ModelVersion | None:
    """The version that a run outside a round made; None where it made none."""
    result = run.result or {}
    name = "adapter" if result.get("adapter") else "model"
    if run.method not in LAUNCHABLE or not result.get(name):
        return None
    path = f"{run.folder}/{result[name]}"
    folder = Path(settings.RUNS_DIR) / path
    base = dict(run.config["base"])
    whole = name == "model"
    if whole:
        base |= {"source": str(folder.resolve()), "revision": None}
    kind = LAUNCHABLE[run.method].makes
    snapshot = run.snapshot
    version, _ = ModelVersion.objects.get_or_create(
        workspace=run.workspace,
        digest=folder_digest(folder) if whole else adapter_digest(folder),
        defaults={
            "project": snapshot.project if snapshot is not None else None,
            "kind": kind,
            "name": f"{run.snapshot or run.text_set} {name_of(run.method)} (run {run.pk})",
            "base": base,
            "parent": run.version,
            "run": run,
            "adapter_path": "" if whole else path,
            "model_path": path if whole else "",
            "metrics": result.get("metrics", {}),
        },
    )
    return version


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and hashes of a whole model's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            digest.update(f"{path.name} {sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


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
