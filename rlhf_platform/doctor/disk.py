"""The folders that hold our data: room, writing, and what durable files rest on."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from django.conf import settings

from rlhf_platform.doctor.findings import Finding

#: Free bytes below which a run may fail, and below which it will.
LITTLE_SPACE, NO_SPACE = 5_000_000_000, 1_000_000_000


def check_disk() -> list[Finding]:
    """Room, writing, and what durable files rest on, in every folder that holds our data."""
    folders = {"data folder": Path(settings.DATA_DIR)}
    folders |= {
        "runs folder": Path(settings.RUNS_DIR),
        "model cache": Path(settings.MODEL_CACHE_DIR),
    }
    found = []
    seen: set[int] = set()
    for name, folder in folders.items():
        if not folder.exists() and name != "data folder":
            continue  # made when it is needed
        device = folder.stat().st_dev if folder.is_dir() else -1
        if device not in seen or device == -1:
            found += look_at_folder(name, folder)
        seen.add(device)
    return found


def look_at_folder(name: str, folder: Path) -> list[Finding]:
    mend = "name a folder that this user can write to in DATA_DIR"
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        return [Finding(name, "bad", f"{folder} {what}", mend)]
    try:
        links = try_writing(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return [Finding(name, "bad", f"{folder} cannot be written: {error.strerror}", mend)]
    found = [space_finding(name, folder, free)]
    if not links:
        said = f"{folder} knows no hard links, so that files cannot be claimed by one process only"
        mend = "use a local file system that has them (ext4, XFS, APFS), no exFAT and no share"
        found.append(Finding(name, "warning", said, mend))
    return found


def try_writing(folder: Path) -> bool:
    """Write, flush to disk and rename a file, then its folder; whether hard links work. OSError."""
    path = folder / f".doctor-{secrets.token_hex(4)}"
    renamed, linked = path.with_suffix(".renamed"), path.with_suffix(".linked")
    try:
        with path.open("wb") as handle:
            handle.write(b"doctor")
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(path, renamed)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(renamed, linked)
        except OSError:
            return False
        return True
    finally:
        for leftover in (path, renamed, linked):
            leftover.unlink(missing_ok=True)


def space_finding(name: str, folder: Path, free: int) -> Finding:
    said = f"{folder} can be written and has {free / 1e9:.1f} GB free"
    mend = "make room: manage.py prune frees old checkpoints (--dry-run says how much)"
    if free < NO_SPACE:
        return Finding(name, "bad", said, mend)
    return (
        Finding(name, "warning", said, mend) if free < LITTLE_SPACE else Finding(name, "ok", said)
    )
