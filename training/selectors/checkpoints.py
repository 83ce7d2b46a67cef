"""A run's checkpoints: what the rows say, and what lies in its folder."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from training.engine.rundir import sha256_of_file
from training.models import JobAttempt, Run
from training.selectors.logs import inside_runs

#: What the engine calls a checkpoint's folder once it is complete.
NAME = re.compile(r"step-(\d{1,12})")


@dataclass(frozen=True)
class Found:
    """One checkpoint's folder on this machine."""

    path: Path
    #: Relative to the run's folder, as its row names it.
    relative: str
    #: Hex of the attempt that wrote it.
    token: str
    step: int


def checkpoints_on_disk(run: Run) -> list[Found]:
    """The complete checkpoints in a run's folder, the newest first; links lead nowhere."""
    folder = inside_runs(run.folder)
    if folder is None:
        return []
    found = []
    for path in folder.glob("attempts/*/checkpoints/step-*"):
        name = NAME.fullmatch(path.name)
        if name is not None and is_own(path, folder):
            relative = str(path.relative_to(folder))
            found.append(Found(path, relative, path.parts[-3], int(name[1])))
    return sorted(found, key=lambda checkpoint: (-checkpoint.step, checkpoint.relative))


def is_own(path: Path, folder: Path) -> bool:
    """Whether a path is a folder inside `folder` (resolved) that no link leads out of."""
    return path.is_dir() and path.resolve() == path and path.is_relative_to(folder)


def what_is_wrong(checkpoint: Path) -> str:
    """Why a checkpoint cannot be used, by its own manifest; empty where every file is as written.

    The engine also looks at config, data and versions before it uses one.
    """
    try:
        manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
        for name, expected in manifest["files"].items():
            sha256 = expected["sha256"] if isinstance(expected, dict) else expected
            if Path(name).name != name or sha256_of_file(checkpoint / name) != sha256:
                return f"{name} has changed since it was written"
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        return f"cannot be read ({error})"
    return "" if manifest["files"] else "names no files"


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder; 0 for one that its attempt is deleting at the moment."""
    try:
        return sum(path.lstat().st_size for path in folder.iterdir())
    except OSError:
        return 0


@dataclass(frozen=True)
class KnownCheckpoint:
    """One checkpoint as a page shows it."""

    step: int
    #: None where the attempt is not in the history.
    attempt: int | None
    path: str
    size_bytes: int
    sha256: str
    created_at: datetime | None
    removed_at: datetime | None
    #: Whether its files are on this machine.
    there: bool


def run_checkpoints(run: Run) -> list[KnownCheckpoint]:
    """Every checkpoint that a row or the folder knows of, the newest first."""
    disk = {found.relative: found for found in checkpoints_on_disk(run)}
    known = [
        KnownCheckpoint(
            step=row.step,
            attempt=row.attempt,
            path=row.path,
            size_bytes=row.size_bytes,
            sha256=row.sha256,
            created_at=row.created_at,
            removed_at=row.removed_at,
            there=disk.pop(row.path, None) is not None,
        )
        for row in run.checkpoints.all()
    ]
    numbers = attempt_numbers(run) if disk else {}
    known += [
        KnownCheckpoint(
            step=found.step,
            attempt=numbers.get(found.token),
            path=found.relative,
            size_bytes=folder_size(found.path),
            sha256="",
            created_at=None,
            removed_at=None,
            there=True,
        )
        for found in disk.values()
    ]
    return sorted(known, key=lambda one: (-one.step, -(one.attempt or 0)))


def attempt_numbers(run: Run) -> dict[str, int]:
    """The number of each attempt by the name of its folder."""
    rows = JobAttempt.objects.filter(job__run=run).values_list("token", "number")
    return {token.hex: number for token, number in rows}


def resume_step(known: list[KnownCheckpoint]) -> int | None:
    """The step from which another attempt would go on; None where it begins anew.

    Its files are only checked by the attempt itself, which falls back to the one before.
    """
    return next((one.step for one in known if one.there), None)
