"""Engine runs in forked children: a server imports torch once, and a run then starts in a moment.

The server imports and computes nothing, so no thread pool exists yet when it forks.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.faults.operations import Fault, install

#: What a child would import anyway; `tests.faults.preload` imports the engine's methods.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.preload"])
#: A child that takes longer has hung.
PATIENCE_S = 120.0


def start(folder: Path, attempt: str, cache: Path, fault: Fault | None = None) -> Any:
    """Start `python -m training.engine run folder` as a child. Returns its process."""
    child = CONTEXT.Process(target=_run, args=(folder, attempt, cache, fault))
    child.start()
    return child


def finish(folder: Path, attempt: str, cache: Path, **how: Any) -> int:
    """Run to the end. Returns the exit status, negative for a signal."""
    child = start(folder, attempt, cache, **how)
    child.join(PATIENCE_S)
    if child.exitcode is None:
        child.kill()
        child.join()
        raise AssertionError(f"{folder} hung: {log_of(folder)}")
    return int(child.exitcode)


def kill_when(child: BaseProcess, ready: Callable[[], bool], delay_s: float = 0.0) -> bool:
    """SIGKILL the child `delay_s` after `ready`. Returns whether it was still running."""
    deadline = time.monotonic() + PATIENCE_S
    while child.is_alive() and not ready():
        assert time.monotonic() < deadline, "the child hung"
        time.sleep(0.002)
    time.sleep(delay_s)
    child.kill()
    child.join()
    return child.exitcode == -signal.SIGKILL


def log_of(folder: Path) -> str:
    return (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-2000:]


def _run(folder: Path, attempt: str, cache: Path, fault: Fault | None) -> None:
    """In the child: what `__main__` would do, with its output in the folder's log.txt."""
    out = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ["ENGINE_CACHE_DIR"] = str(cache)
    from training.engine.__main__ import main

    if fault is not None:
        install(folder, fault)
    os._exit(main(["run", str(folder), "--attempt", attempt]))
