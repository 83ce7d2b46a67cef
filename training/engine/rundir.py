"""The run folder: the contract between the engine and whoever launched it.

See docs/reference/run-directory.md. Holds no torch, so that services may use it too.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from training.engine.config import RunConfig, config_digest, from_dict
from training.engine.errors import ConfigError, DataError, OutOfSpaceError, RunFolderError

Row = dict[str, Any]


def require_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise OutOfSpaceError unless the disk of `folder` has room for `needed_bytes`."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise OutOfSpaceError(
            f"{what} needs {needed_bytes / 1e6:.0f} MB in {folder}, "
            f"which has {free / 1e6:.0f} MB left; make room and try again"
        )


def write_file(path: Path, text: str) -> None:
    """Write beside, flush to disk, rename: a reader sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutOfSpaceError(f"{path} could not be written: {error.strerror or error}") from error


def publish_folder(beside: Path, final: Path) -> None:
    """Make every file of `beside` durable, then give the folder its final name."""
    for path in sorted(beside.rglob("*")):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    os.replace(beside, final)


def sha256_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_rows(path: Path) -> list[Row]:
    """The objects of a JSON-lines file, split on "\\n" only. DataError names the line."""
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start})") from None
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path} line {number}: not JSON ({error.msg})") from None
        if not isinstance(row, dict):
            raise DataError(f"{path} line {number}: not a JSON object")
        rows.append(row)
    if not rows:
        raise DataError(f"{path} holds no rows")
    return rows


class EventWriter:
    """Appends numbered events to one attempt's events.jsonl, flushed line by line."""

    def __init__(self, path: Path) -> None:
        earlier = path.read_bytes() if path.exists() else b""
        self._seq = len(earlier.splitlines())
        self._path = path
        self._handle: IO[bytes] = path.open("ab", buffering=0)
        if earlier and not earlier.endswith(b"\n"):  # a line that a crash cut stays alone
            self._append(b"\n")

    def write(self, kind: str, **body: Any) -> None:
        event = {"seq": self._seq, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        line = json.dumps({**event, "kind": kind, **body}, ensure_ascii=False, allow_nan=False)
        self._append(line.encode() + b"\n")
        self._seq += 1

    def _append(self, line: bytes) -> None:
        try:
            written = self._handle.write(line)
        except OSError as error:
            raise OutOfSpaceError(
                f"{self._path} could not be written: {error.strerror}; make room and start again"
            ) from error
        if written != len(line):
            raise OutOfSpaceError(f"{self._path} has no room left; make room and start again")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """One point of each curve. What is not a number cannot be drawn: it is named instead."""
        lost = sorted(name for name, value in values.items() if not math.isfinite(value))
        good = {name: float(value) for name, value in values.items() if name not in lost}
        self.write("metrics", step=step, values=good)
        if lost:
            self.warning("not_finite", f"step {step}: {', '.join(lost)} left the range of numbers")

    def warning(self, code: str, message: str) -> None:
        self.write("warning", code=code, message=message)

    def close(self) -> None:
        self._handle.close()


class RunDir:
    """One run folder and the attempt that may write to it."""

    def __init__(self, path: Path, attempt: str | None = None) -> None:
        """Raises RunFolderError for a folder that is missing, finished, or another config's."""
        self.path = path.resolve()
        if not (self.path / "config.json").is_file():
            raise RunFolderError(f"{path} holds no config.json; is it a run folder?")
        self.config = read_config(self.path / "config.json")
        if (self.path / "result.json").exists():
            raise RunFolderError(how_it_ended(self.path / "result.json"))
        self.config_sha256 = config_digest(self.config)
        self.attempt = attempt or secrets.token_hex(8)
        if not self.attempt.replace("-", "").isalnum():
            raise RunFolderError(f"--attempt {self.attempt!r}: use letters, digits and dashes")
        self.attempt_path = self.path / "attempts" / self.attempt
        self._claim()
        try:
            self.events = EventWriter(self.attempt_path / "events.jsonl")
        except OSError as error:
            raise RunFolderError(f"{self.path} cannot be written: {error.strerror}") from error

    def _claim(self) -> None:
        """Refuse another config's attempts, then make this attempt's folder."""
        seal = self.path / "attempts" / "config.sha256"
        try:
            self.attempt_path.mkdir(parents=True, exist_ok=True)
            if not seal.exists():
                write_file(seal, self.config_sha256)
        except OSError as error:
            raise RunFolderError(f"{self.path} cannot be written: {error.strerror}") from error
        if seal.read_text(encoding="utf-8").strip() != self.config_sha256:
            raise RunFolderError(
                f"{self.path} holds attempts of another config; a changed config needs a new folder"
            )

    def data_sha256(self) -> str:
        """SHA-256 over the names and hashes of all data files."""
        digest = hashlib.sha256()
        for path in sorted((self.path / "data").glob("*.jsonl")):
            if not path.is_file():
                continue
            digest.update(f"{path.name} {sha256_of_file(path)}\n".encode())
        return digest.hexdigest()

    def rows(self, name: str) -> list[Row]:
        return read_rows(self.path / name)

    def checkpoints(self) -> Iterator[Path]:
        """Checkpoint folders of all attempts, the highest step first."""
        found = self.path.glob("attempts/*/checkpoints/step-*")
        yield from sorted(found, key=lambda path: path.name, reverse=True)


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """result.json, written last and once. Metrics that are not finite are left out: not JSON."""
    finite = {k: v for k, v in result["metrics"].items() if math.isfinite(v)}
    text = json.dumps({**result, "metrics": finite}, indent=2, ensure_ascii=False) + "\n"
    write_file(folder / "result.json", text)


def how_it_ended(path: Path) -> str:
    """Why a folder with a result is not run again, and what to do."""
    try:
        status = json.loads(path.read_text(encoding="utf-8"))["status"]
    except (OSError, ValueError, KeyError, TypeError):
        status = "done"
    if status == "done":
        return f"{path.parent} already holds a finished run; start the next in a new folder"
    return (
        f"{path.parent} holds a run that was {status} ({path.name} says why); move {path.name} "
        "away to try again, or start in a new folder"
    )


def read_config(path: Path) -> RunConfig:
    """The validated config of a run folder. Raises ConfigError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    return from_dict(data)
