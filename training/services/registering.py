"""Putting what a run made into the registry, addressed by its bytes."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from annotate.models import Project
from training.engine.files import adapter_digest
from training.engine.hashes import sha256_of_model
from training.models import ModelVersion, Round, Run
from training.services.methods import LAUNCHABLE


def name_of(method: str) -> str:
    """What a method's versions are called."""
    named = {"reward": "reward model", "pretrain": "pretrained", "classify": "classifier"}
    return named.get(method, method.upper())


def register_single(*, run: Run) -> ModelVersion | None:
    """The version that a run outside a round made; None where it made none."""
    result = run.result or {}
    makes = LAUNCHABLE[run.method].makes if run.method in LAUNCHABLE else ""
    if not makes or not (result.get("adapter") or result.get("model")):
        return None
    snapshot = run.snapshot
    return registered(
        run=run,
        project=snapshot.project if snapshot is not None else None,
        kind=makes,
        name=f"{snapshot or run.text_set} {name_of(run.method)} (run {run.pk})",
    )


def register_version(*, run: Run, round: Round, kind: str) -> ModelVersion:
    """The version of what a run of a round trained."""
    full = " (full)" if (run.result or {}).get("model") is not None else ""
    name = f"{round.project.slug} round {round.number} {name_of(run.method)}{full}"
    return registered(run=run, project=round.project, kind=kind, name=name)


def registered(*, run: Run, project: Project | None, kind: str, name: str) -> ModelVersion:
    """The version of a run's adapter or model; the earlier one where the same bytes were made."""
    result = run.result or {}
    whole = result.get("model") is not None
    path = f"{run.folder}/{result['model' if whole else 'adapter']}"
    folder = Path(settings.RUNS_DIR) / path
    base = run.config["base"]
    version, _ = ModelVersion.objects.get_or_create(
        workspace=run.workspace,
        digest=sha256_of_model(folder, folder.parent) if whole else adapter_digest(folder),
        defaults={
            "project": project,
            "kind": kind,
            "name": name,
            # what later runs load: the folder itself, which a new adapter may be trained on
            "base": {**base, "source": str(folder), "revision": None} if whole else base,
            "parent": run.version,
            "run": run,
            "model_path" if whole else "adapter_path": path,
            "metrics": result.get("metrics", {}),
        },
    )
    return version
