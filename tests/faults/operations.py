"""A fault at a chosen file operation: the process kills itself, or finds the disk full."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Audit events of Python that are a file operation.
OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link")


@dataclass(frozen=True)
class Fault:
    """What happens before the n-th operation of the m-th time that something is written."""

    what: str
    """checkpoint, adapter or result."""
    time: int
    operation: int
    fill: bool = False
    """Fill the disk instead of dying."""


#: None at all, but operations are counted.
NO_FAULT = Fault("", 0, 0)
#: What takes up the room of a full disk; beside the run folders.
FILLER = "filler"


def install(folder: Path, fault: Fault) -> None:
    """Count the file operations of every write of this process, and let the fault happen.

    Operations are every open, rename, link, mkdir, remove, rmdir and fsync, and the start, the
    middle and the end of a tensors' file, which another language writes. Each write leaves how many
    it had in `operations-<what>-<time>` of the folder.
    """
    from training.engine import __main__ as command
    from training.engine import checkpoint, models, steps

    times: dict[str, int] = {}
    inside: list[str] = []
    done = 0

    def step() -> None:
        nonlocal done
        if not inside:
            return
        done += 1
        if (inside[0], times[inside[0]], done) == (fault.what, fault.time, fault.operation):
            if fault.fill:
                inside.clear()
                fill(folder.parent)
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, _: tuple[Any, ...]) -> None:
        if event in OPERATIONS:
            step()

    def halved(write: Callable[[Any, Path], None]) -> Callable[[Any, Path], None]:
        def save_file(tensors: Any, path: Path) -> None:
            step()
            write(tensors, path)
            whole = path.read_bytes()
            os.truncate(path, len(whole) // 2)
            step()
            path.write_bytes(whole)
            step()

        return save_file

    def counted(what: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            times[what], done = times.get(what, 0) + 1, 0
            inside.append(what)
            try:
                return write(*arguments, **named)
            finally:
                inside.clear()
                with contextlib.suppress(OSError):
                    count = folder / f"operations-{what}-{times[what]}"
                    count.write_text(str(done), encoding="ascii")

        return wrapped

    sync = os.fsync

    def fsync(descriptor: int) -> None:
        step()
        sync(descriptor)

    checkpoint.save_file = halved(checkpoint.save_file)  # type: ignore[assignment]
    models.save_file = halved(models.save_file)  # type: ignore[assignment]
    steps.save_checkpoint = counted("checkpoint", steps.save_checkpoint)
    models.Base._save = counted("adapter", models.Base._save)  # type: ignore[method-assign]
    command.publish_result = counted("result", command.publish_result)
    os.fsync = fsync
    sys.addaudithook(audit)


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with (disk / FILLER).open("wb", buffering=0) as filler:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while filler.write(bytes(size)) == size:
                    pass


def operations(folder: Path, what: str, time: int) -> int:
    """How many operations a write of a finished run had."""
    return int((folder / f"operations-{what}-{time}").read_text(encoding="ascii"))
