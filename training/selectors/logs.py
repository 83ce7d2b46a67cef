"""The ends of an attempt's logs and an adapter's files, read from RUNS_DIR and nowhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from training.engine.files import sha256_of_file
from training.models import ModelVersion, Run

#: Bytes of a log or a traceback that a page shows.
TAIL = 4096
#: Larger files are not hashed while somebody waits for a page.
MAX_HASHED = 512_000_000


def inside_runs(relative: str) -> Path | None:
    """A path under RUNS_DIR, links followed; None for what lies outside or does not exist."""
    root = Path(settings.RUNS_DIR).resolve()
    path = (root / relative).resolve()
    return path if path.is_relative_to(root) and path != root and path.exists() else None


@dataclass(frozen=True)
class AttemptFiles:
    """The ends of what one attempt wrote for people; empty where it wrote none (here)."""

    log: str = ""
    traceback: str = ""


def attempt_files(run: Run, token: str) -> AttemptFiles:
    """The last parts of an attempt's log.txt and traceback.txt; `token` names its folder."""
    folder = f"{run.folder}/attempts/{token}"
    return AttemptFiles(tail(f"{folder}/log.txt"), tail(f"{folder}/traceback.txt"))


def tail(relative: str) -> str:
    """The last part of a text file under RUNS_DIR; empty for what is none, or lies outside."""
    path = inside_runs(relative)
    if path is None or not path.is_file():
        return ""
    try:
        with path.open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - TAIL))
            return handle.read(TAIL).decode("utf-8", "replace")
    except OSError:
        return ""


@dataclass(frozen=True)
class AdapterFile:
    """One file of an adapter; `sha256` is empty where it was too large to hash on a page."""

    name: str
    size: int
    sha256: str


def adapter_files(version: ModelVersion) -> list[AdapterFile]:
    """The files of a version's adapter, with their hashes; empty for a base or a missing folder."""
    folder = inside_runs(version.adapter_path) if version.adapter_path else None
    if folder is None or not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        if not path.is_file() or inside_runs(str(path)) is None:
            continue
        status = path.stat()
        hashed = sha256_at(str(path), status.st_size, status.st_mtime_ns)
        found.append(AdapterFile(path.name, status.st_size, hashed))
    return found


@lru_cache(maxsize=256)
def sha256_at(path: str, size: int, modified_ns: int) -> str:
    """The hash of a file as it was at this size and time, computed once per process."""
    return sha256_of_file(Path(path)) if size <= MAX_HASHED else ""
