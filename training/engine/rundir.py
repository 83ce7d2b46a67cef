"""The run folder: the contract between the engine and whoever launched it.

See docs/reference/run-directory.md. Holds no torch, so that services may use it too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeGuard

from training.engine.alarms import Alarms
from training.engine.config import RunConfig, config_digest, from_dict
from training.engine.errors import ConfigError, DataError, RunFolderError
from training.engine.files import (
    cannot_write,
    link_once,
    point_to,
    sha256_of_file,
    sync_folder,
    write_file,
)

Row = dict[str, Any]


def is_text(value: Any) -> TypeGuard[str]:
    """Half a surrogate pair is a str in Python, and no text to a tokenizer."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def read_rows(path: Path) -> list[Row]:
    """The objects of a JSON-lines file, split on "\\n" only. DataError names the line."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        at = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} line {at} is not UTF-8 text (byte {error.start} of the file); convert it, "
            "such as iconv -f ISO-8859-1 -t UTF-8"
        ) from None
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

    def __init__(self, path: Path, alarms: Alarms | None = None) -> None:
        """`alarms` see every metric that passes; without them nothing is watched."""
        self._alarms = alarms
        earlier = path.read_bytes() if path.exists() else b""
        self._seq = len(earlier.splitlines())
        self._size = len(earlier)
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
        """The whole line, or none of it."""
        try:
            written = self._handle.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with contextlib.suppress(OSError):
                self._handle.truncate(self._size)
            raise cannot_write(self._path, error) from error
        self._size += len(line)

    def sync(self) -> None:
        """What was written outlives a power cut; called before a checkpoint that is newer."""
        try:
            os.fsync(self._handle.fileno())
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def metrics(self, step: int, found: Mapping[str, float | None]) -> None:
        """One point of each curve. What is not a number cannot be drawn: it is named instead.

        None is not known, such as an interval's end of one prompt, and left out.
        """
        values = {name: value for name, value in found.items() if value is not None}
        lost = sorted(name for name, value in values.items() if not math.isfinite(value))
        good = {name: float(value) for name, value in values.items() if name not in lost}
        self.write("metrics", step=step, values=good)
        if lost:
            self.warning("not_finite", f"step {step}: {', '.join(lost)} left the range of numbers")
        if self._alarms is not None:
            for alarm in self._alarms.see(step, values):
                self.write("alarm", **asdict(alarm))

    def warning(self, code: str, message: str) -> None:
        self.write("warning", code=code, message=message)

    def close(self) -> None:
        self._handle.close()


class RunDir:
    """One run folder and the attempt that may write to it, inside a folder of its own."""

    def __init__(
        self, path: Path, attempt: str | None = None, *, scratch: Path | None = None
    ) -> None:
        """Raises RunFolderError for a folder that is missing, finished, or cannot be written.

        scratch: where one of several processes that is not the leader writes what nobody reads.
        """
        self.path = path.resolve()
        if not (self.path / "config.json").is_file():
            raise RunFolderError(f"{path} holds no config.json; is it a run folder?")
        self.config = read_config(self.path / "config.json")
        if (self.path / "result.json").exists():
            raise RunFolderError(how_it_ended(self.path / "result.json"))
        self.config_sha256 = config_digest(self.config)
        #: The base, a Hub id at the commit that `compare_inputs` found.
        self.base = self.config.base
        #: What `compare_inputs` found, or the first attempt wrote.
        self.inputs: dict[str, Any] = {}
        #: Whether this process writes checkpoints, adapters and the result.
        self.is_leader = scratch is None
        self.attempt_path = scratch or make_attempt(self.path, attempt)
        self.attempt = self.attempt_path.name
        self.alarms = Alarms(self.config.alarms, self.config.method)
        #: Where an alarm ended the run: after so many points the weights that are kept.
        self.kept_step: int | None = None
        try:
            self.events = EventWriter(self.attempt_path / "events.jsonl", self.alarms)
        except OSError as error:
            raise cannot_write(self.attempt_path / "events.jsonl", error) from error
        self._data: dict[str, str] = {}

    def data_files(self) -> dict[str, str]:
        """SHA-256 of every data file by its name in the folder, read once."""
        if not self._data:
            named = (self.config.data.train, self.config.data.test, self.config.data.prompts)
            paths = {self.path / name for name in named} | {*(self.path / "data").glob("*.jsonl")}
            self._data = {
                str(path.relative_to(self.path)): sha256_of_file(path)
                for path in sorted(paths)
                if path.is_file()
            }
        return self._data

    def data_sha256(self) -> str:
        """SHA-256 over the names and hashes of all data files."""
        digest = hashlib.sha256()
        for name, sha256 in self.data_files().items():
            digest.update(f"{name.removeprefix('data/')} {sha256}\n".encode())
        return digest.hexdigest()

    def rows(self, name: str) -> list[Row]:
        return read_rows(self.path / name)

    def held_out_rows(self) -> list[Row]:
        """The first `max_test_rows` of data.test; none without such a file, or in an empty one."""
        data = self.config.data
        path = self.path / data.test
        if not path.is_file() or path.stat().st_size == 0:
            return []
        return self.rows(data.test)[: data.max_test_rows]

    def checkpoints(self) -> Iterator[Path]:
        """Checkpoint folders of all attempts, the highest step first."""
        found = self.path.glob("attempts/*/checkpoints/step-*")
        yield from sorted(found, key=lambda path: path.name, reverse=True)

    def name_of(self, path: Path) -> str:
        """A path as result.json and events name it: relative to the run folder."""
        return os.path.relpath(path, self.path)


def make_attempt(run: Path, name: str | None) -> Path:
    """The folder of an attempt. Raises RunFolderError."""
    name = name or secrets.token_hex(8)
    if not name.replace("-", "").isalnum():
        raise RunFolderError(f"--attempt {name!r}: use letters, digits and dashes")
    folder = run / "attempts" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


#: What an attempt may leave beside result.json, and the key there that names it.
RESULTS = (
    ("adapter", "adapter"),
    ("model", "model"),
    ("samples.jsonl", "samples"),
    ("judgments.jsonl", "judgments"),
    ("answers.jsonl", "answers"),
    ("report.html", "report"),
)


def in_json(value: Any) -> Any:
    """The same with null for what is no number (NaN, infinite): strict JSON has no word for it."""
    if isinstance(value, Mapping):
        return {key: in_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [in_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def publish_result(attempt: Path, result: Mapping[str, Any]) -> bool:
    """Write an attempt's result.json and make it the run's; the first attempt to do so wins.

    The run's result.json is its one commit point: whatever else an attempt wrote counts only once
    the result names it. Metrics that are not finite or not known are left out; elsewhere they are
    null.
    Returns: whether this attempt won. Raises OutOfSpaceError, then nothing is left half written.
    """
    run = attempt.parent.parent
    finite = {k: v for k, v in result["metrics"].items() if v is not None and math.isfinite(v)}
    nothing = dict.fromkeys(kind for _, kind in RESULTS)
    whole = {**nothing, **result, "metrics": finite, "attempt": attempt.name}
    own = attempt / "result.json"
    text = json.dumps(in_json(whole), indent=2, ensure_ascii=False, allow_nan=False)
    write_file(own, text + "\n")
    try:
        link_once(own, run / "result.json")
        sync_folder(run)
    except FileExistsError:
        return False
    except OSError as error:
        raise cannot_write(run / "result.json", error) from error
    for name, kind in RESULTS:
        if whole[kind] is not None:
            point_to(run / name, whole[kind])
    return True


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
