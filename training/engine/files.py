"""Files that survive a crash: written beside, flushed to disk, renamed. Holds no torch."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from training.engine.errors import EngineError, OutOfSpaceError, RunFolderError

#: What the system says when a disk or a person's share of it is full.
FULL = (errno.ENOSPC, errno.EDQUOT)
#: What a filesystem says that has no hard links.
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def is_full(error: BaseException) -> bool:
    """Whether an error, or one it came from, says that a disk is full.

    safetensors hides the system's error in a text of its own, hence the words.
    """
    seen: BaseException | None = error
    while seen is not None:
        full = isinstance(seen, OSError) and seen.errno in FULL
        if full or isinstance(seen, OutOfSpaceError) or "(os error 28)" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def cannot_write(path: Path, error: Exception, needed_bytes: int = 0) -> EngineError:
    """The error for a write that failed: OutOfSpaceError where the disk is full."""
    said = getattr(error, "strerror", None) or error
    if not is_full(error):
        return RunFolderError(f"{path} cannot be written: {said}")
    free = 0
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(path.parent).free
    needs = f"it needs {megabytes(needed_bytes)} and " if needed_bytes else ""
    return OutOfSpaceError(
        f"{path} could not be written: No space left on device ({needs}{megabytes(free)} are "
        "free); make room and start again"
    )


def require_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise OutOfSpaceError unless the disk of `folder` has room for `needed_bytes`."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise OutOfSpaceError(
            f"{what} needs {megabytes(needed_bytes)} in {folder}, "
            f"which has {megabytes(free)} left; make room and start again"
        )


def write_file(path: Path, text: str) -> None:
    """Write beside, flush to disk, rename: a reader sees the old file or the new one."""
    _write(path, text, os.replace)


def write_file_once(path: Path, text: str) -> bool:
    """Like `write_file`, but the first writer wins. Returns whether this one was it."""
    try:
        _write(path, text, link_once)
    except FileExistsError:
        return False
    return True


def _write(path: Path, text: str, publish: Callable[[Path, Path], None]) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        publish(beside, path)
        sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise cannot_write(path, error, len(text.encode())) from error
    finally:
        beside.unlink(missing_ok=True)


def link_once(source: Path, final: Path) -> None:
    """Give a written file a second name. Raises FileExistsError where that name is taken.

    A hard link is made or refused by the filesystem in one step, so of two writers one wins. Where
    there are no hard links two that end within the same moment could both believe so.
    """
    try:
        os.link(source, final)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if final.exists():
            raise FileExistsError(errno.EEXIST, "exists already", str(final)) from None
        copy = final.with_name(f".{final.name}.{secrets.token_hex(4)}")
        shutil.copyfile(source, copy)
        sync_file(copy)
        os.replace(copy, final)


def point_to(link: Path, target: str) -> None:
    """Make or move a relative symbolic link; where there can be none, people go without."""
    beside = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):
        beside.symlink_to(target)
        os.replace(beside, link)
    with contextlib.suppress(OSError):
        beside.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, where the filesystem can."""
    with contextlib.suppress(OSError):
        sync_file(path)


def publish_folder(beside: Path, final: Path) -> None:
    """Make every file of `beside` durable, then give the folder its final name."""
    for path in sorted(beside.rglob("*")):
        if path.is_file():
            sync_file(path)
    sync_folder(beside)
    os.replace(beside, final)
    sync_folder(final.parent)


def sha256_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


#: More replacement characters than this share of a text say that it was read in a wrong encoding.
REPLACED = 0.01
#: How a reward adapter's heads become its score, where that is more than one head's number.
REWARD_SCALE = "reward_scale.json"
#: A classifier's config beside its adapter: what its logits are called.
CLASSIFIER = "config.json"
#: The files that are an adapter; tokenizers and cards beside them change nothing.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", REWARD_SCALE)


def adapter_digest(folder: Path) -> str:
    """SHA-256 over the names and hashes of an adapter's own files. Raises FileNotFoundError."""
    digest = hashlib.sha256()
    for name in ADAPTER_FILES:
        if name == REWARD_SCALE and not (folder / name).exists():
            continue  # most adapters have none
        digest.update(f"{name} {sha256_of_file(folder / name)}\n".encode())
    return digest.hexdigest()
