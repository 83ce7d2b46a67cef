"""A process that kills itself at a chosen file operation of a checkpoint write."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

#: Audit events of Python that are a file operation.
OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link")


def die_in_save(folder: Path, save: int, operation: int) -> None:
    """SIGKILL this process before the n-th file operation of its m-th checkpoint, both from 1.

    Operations are every open, rename, mkdir, remove, rmdir and fsync of the save (old checkpoints'
    removal included), and the start, the middle and the end of the tensors' file, which another
    language writes. Each save leaves its number of operations in `operations-<save>` of the folder.
    """
    from training.engine import checkpoint, steps

    saves = done = 0
    counting = False

    def step() -> None:
        nonlocal done
        done += 1
        if (saves, done) == (save, operation):
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, _: tuple[Any, ...]) -> None:
        if counting and event in OPERATIONS:
            step()

    write_tensors, sync, save_checkpoint = checkpoint.save_file, os.fsync, steps.save_checkpoint

    def save_file(tensors: Any, path: Path) -> None:
        step()
        write_tensors(tensors, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        step()
        path.write_bytes(whole)
        step()

    def fsync(descriptor: int) -> None:
        if counting:
            step()
        sync(descriptor)

    def counted(*arguments: Any) -> Any:
        nonlocal saves, done, counting
        saves, done, counting = saves + 1, 0, True
        try:
            return save_checkpoint(*arguments)
        finally:
            counting = False
            (folder / f"operations-{saves}").write_text(str(done), encoding="ascii")

    checkpoint.save_file, os.fsync, steps.save_checkpoint = save_file, fsync, counted  # type: ignore[assignment]
    sys.addaudithook(audit)
