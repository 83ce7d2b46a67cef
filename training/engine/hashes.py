"""Hashes of a base's files, and what is remembered by a hash: found out once, then read."""

from __future__ import annotations

import contextlib
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from training.engine.errors import EngineError
from training.engine.files import sha256_of_file, write_file

#: Files from this size on are remembered by path, size and time of change.
LARGE_BYTES = 8_000_000
#: What transformers reads of a model folder; a README beside it may change.
MODEL_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".txt")


@cache
def sha256_of_engine() -> str:
    """SHA-256 over this package's own code, of which a remembered check is a result."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(f"{path.name} {sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


def recalled(kept: Path, name: str) -> Any:
    """A value that `remember` kept in a file of the cache; None where none can be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads(kept.read_text(encoding="utf-8"))[name]
    return None


def remember(kept: Path, **values: Any) -> None:
    """Keep values in a file of the cache; where that fails they are found out anew next time."""
    with contextlib.suppress(OSError, EngineError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_file(kept, json.dumps(values))


def remembered_sha256(path: Path, cache: Path) -> str:
    """SHA-256 of a file, looked up in `cache` where it is large and was hashed before.

    A file changed in place with its size and time of change kept would not be noticed.
    """
    path = path.resolve()
    facts = path.stat()
    if facts.st_size < LARGE_BYTES:
        return sha256_of_file(path)
    key = hashlib.sha256(f"{path} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()
    kept = cache / "hashes" / f"{key}.json"
    known = recalled(kept, "sha256")
    if isinstance(known, str):
        return known
    digest = sha256_of_file(path)
    remember(kept, path=str(path), sha256=digest)
    return digest


def sha256_of_model(folder: Path, cache: Path) -> str:
    """SHA-256 over the names and hashes of the files that make a model folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in MODEL_SUFFIXES and path.is_file():
            digest.update(f"{path.name} {remembered_sha256(path, cache)}\n".encode())
    return digest.hexdigest()
