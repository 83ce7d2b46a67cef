"""Stages of a comparison: each a child of the engine's own command line, kept by its digest.

    stages/NAME-<digest>/      a run folder, or an index
    ledger.jsonl               for each start and end of a child: seconds, CPU seconds, peak memory

What a stage is follows from its config, its files and the stages before it. One that ended well is
not run again, and one that was cut off goes on. Peak memory and CPU time are the kernel's count of
the child alone (wait4), imports included. Holds no torch, which keeps that count honest: on Linux a
child begins with the peak of the process that started it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.engine.answered import append, whole_rows
from training.engine.config import RunConfig, to_dict
from training.engine.errors import EngineError, Interrupted, OutOfSpaceError
from training.engine.files import cannot_write, write_file
from training.engine.rundir import Row
from training.engine.tether import EXIT_INTERRUPTED

LEDGER = "ledger.jsonl"
#: Exit status of a run that lacks room on a disk (`__main__`).
EXIT_NO_SPACE = 74


class StageError(EngineError):
    """Raised when a stage of a comparison failed; says which, and why."""


@dataclass(frozen=True)
class Done:
    """A stage that ended well. seconds and CPU seconds are those of all its attempts."""

    name: str
    folder: Path
    result: dict[str, Any]
    wall_s: float
    cpu_s: float
    peak_mb: float
    attempts: int
    cut_off: int
    """Attempts that nobody saw the end of: what they took is not in the seconds."""

    def path_of(self, kind: str) -> Path:
        """What the stage left, such as its adapter."""
        return self.folder / str(self.result[kind])


class Stages:
    """The stages in a folder, and what they took."""

    def __init__(self, out: Path, begun: Callable[[str], None] | None = None) -> None:
        """begun: told the name of each stage, also of one that has ended before."""
        self.out = out.resolve()
        self._begun = begun
        try:
            (self.out / "stages").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(out, error) from error
        self._ledger = self.out / LEDGER
        self._rows: list[Row] = whole_rows(self._ledger)
        write_file(self._ledger, "".join(json.dumps(row) + "\n" for row in self._rows))

    def run(self, name: str, config: RunConfig, files: Mapping[str, str]) -> Done:
        """A run of the engine. files: the texts of data/NAME.jsonl. Raises StageError."""
        body = json.dumps(to_dict(config), indent=2, ensure_ascii=False) + "\n"
        digest = self._digest(name, body, files)
        folder = self.out / "stages" / f"{name}-{digest[:12]}"
        if not (folder / "config.json").exists():
            place(folder, {f"data/{key}.jsonl": text for key, text in files.items()})
            write_file(folder / "config.json", body)
        command = ["run", str(folder)]
        return self._finish(name, digest, folder, command, folder / "result.json")

    def index(self, name: str, documents: str, settings: Mapping[str, Any]) -> Done:
        """An index of documents (rows as text). settings: of `IndexSettings`. Raises StageError."""
        digest = self._digest(name, json.dumps(settings, sort_keys=True), {"documents": documents})
        folder = self.out / "stages" / f"{name}-{digest[:12]}"
        place(folder, {"documents.jsonl": documents})
        options: list[str] = []
        for key, value in settings.items():
            if key == "dense":
                options += [] if value else ["--sparse"]
            else:
                options += [f"--{key.replace('_', '-')}", str(value)]
        made = folder / "index"
        command = ["index", str(made), str(folder / "documents.jsonl"), *options]
        return self._finish(name, digest, folder, command, made / "manifest.json")

    def _digest(self, name: str, body: str, files: Mapping[str, str]) -> str:
        """Of what a stage is; paths within the folder count from there, so that it may move."""
        inside = body.replace(f"{self.out}/", "")
        whole = json.dumps([name, inside, dict(sorted(files.items()))])
        return hashlib.sha256(whole.encode()).hexdigest()

    def _finish(
        self, name: str, digest: str, folder: Path, command: Sequence[str], end: Path
    ) -> Done:
        """Run the stage unless it has ended well, and tell what it took altogether."""
        if self._begun is not None:
            self._begun(name)
        if not (end.is_file() and self._ended_well(name, digest)):
            if end.name == "result.json" and end.is_file():
                attempt = sum(path.name.startswith("result-") for path in folder.iterdir()) + 1
                end.rename(folder / f"result-before-{attempt}.json")  # a refusal, tried again
            self._child(name, digest, folder, command, end)
        ended = [row for row in self._rows if (row["stage"], row["digest"]) == (name, digest)]
        took = [row for row in ended if row["event"] == "end"]
        result = json.loads(end.read_text(encoding="utf-8"))
        return Done(
            name=name,
            folder=folder,
            result=result,
            wall_s=sum(row["wall_s"] for row in took),
            cpu_s=sum(row["cpu_s"] for row in took),
            peak_mb=max(row["peak_mb"] for row in took),
            attempts=len(took),
            cut_off=sum(row["event"] == "start" for row in ended) - len(took),
        )

    def _ended_well(self, name: str, digest: str) -> bool:
        ends = [row for row in self._rows if row["event"] == "end" and row["exit"] == 0]
        return any((row["stage"], row["digest"]) == (name, digest) for row in ends)

    def _child(
        self, name: str, digest: str, folder: Path, command: Sequence[str], end: Path
    ) -> None:
        """Run the child to its end and book it. Raises StageError, Interrupted."""
        self._book({"event": "start", "stage": name, "digest": digest})
        started = time.monotonic()
        status, usage = spent_by(command, folder / "log.txt")
        scale = 2**20 if sys.platform == "darwin" else 2**10
        self._book(
            {
                "event": "end",
                "stage": name,
                "digest": digest,
                "exit": status,
                "wall_s": round(time.monotonic() - started, 2),
                "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
                "peak_mb": round(usage.ru_maxrss / scale, 1),
            }
        )
        if status == EXIT_INTERRUPTED:
            raise Interrupted(f"stopped in {name}; the same command goes on from there")
        if status == EXIT_NO_SPACE:
            raise OutOfSpaceError(f"{name}: {last_words(folder)}")
        if status != 0:
            raise StageError(f"{name}: {reason_of(end, folder, status)}")

    def _book(self, row: Row) -> None:
        append(self._ledger, [row])
        self._rows.append(row)


def place(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        if not path.exists():
            write_file(path, text)


def spent_by(command: Sequence[str], log: Path) -> tuple[int, Any]:
    """(exit status, the kernel's count) of a child of the engine; what it prints goes to `log`.

    A run ends with this process, by the pipe that it is tied to.
    """
    pulse, hold = os.pipe()
    tied = ["--heartbeat-fd", str(pulse)] if command[0] == "run" else []
    try:
        with log.open("ab") as handle:
            child = subprocess.Popen(
                [sys.executable, "-m", "training.engine", *command, *tied],
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                pass_fds=(pulse,),
            )
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except (
            KeyboardInterrupt
        ):  # a terminal sends it to the child too, which ends at a safe place
            _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    finally:
        os.close(hold)
        os.close(pulse)
    return child.returncode, usage


def reason_of(end: Path, folder: Path, status: int) -> str:
    """Why a child failed: its result's own words, or the last ones that it printed."""
    if end.name == "result.json" and end.is_file():
        reason = json.loads(end.read_text(encoding="utf-8")).get("reason")
        if reason:
            return str(reason)
    return f"{last_words(folder)} (exit status {status})"


def last_words(folder: Path) -> str:
    text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip()
    return text.split("\n")[-1][-500:] or "it said nothing"
