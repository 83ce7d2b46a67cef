"""What ties a run to whoever launched it: signals, a pipe with a pulse, and the parent's death."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
from pathlib import Path

from training.engine.errors import UsageError
from training.engine.stopping import ask_to_stop, stop_requested

#: Exit status of a run that goes on from its checkpoint when it is started again.
EXIT_INTERRUPTED = 75
#: prctl's option number (linux/prctl.h).
PR_SET_PDEATHSIG = 1
#: Of a worker and its run the kernel shall end the run when memory is short: it can go on later.
OOM_SCORE = 500


def add_tether(command: argparse.ArgumentParser) -> None:
    """Add the options that tie a command to whoever supervises it."""
    command.add_argument(
        "--heartbeat-fd",
        type=int,
        metavar="N",
        help="read end of a pipe: the run stops at once when it closes",
    )
    command.add_argument(
        "--patience-s",
        type=float,
        metavar="S",
        help="… or when nothing came through it for so many seconds",
    )


def tie(heartbeat_fd: int | None, patience_s: float | None) -> None:
    """Listen to signals and, where a supervisor gave a pipe, live only as long as its pulse.

    SIGTERM and SIGINT ask the loop to stop at the next safe place. A pipe that closes, or that
    brings nothing for `patience_s` seconds, ends the process at once: the supervisor is dead or
    stopped, and another may soon own this run.
    """
    stop_requested.clear()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ask_to_stop())
    if heartbeat_fd is None:
        return
    try:
        os.fstat(heartbeat_fd)
    except OSError as error:
        raise UsageError(
            f"--heartbeat-fd {heartbeat_fd} is not open here ({error.strerror}): the run would not "
            "notice when its supervisor is gone"
        ) from None
    die_with_parent()
    with contextlib.suppress(OSError):  # not everywhere, and not needed for anything else
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")
    watcher = threading.Thread(
        target=live_by_pulse, args=(heartbeat_fd, patience_s), name="tether", daemon=True
    )
    watcher.start()


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def live_by_pulse(heartbeat_fd: int, patience_s: float | None) -> None:
    """End the process with the pulse; never returns, because no run may go on unwatched."""
    try:
        pulse = select.poll()  # select() knows no descriptor beyond 1023
        pulse.register(heartbeat_fd, select.POLLIN)
        while pulse.poll(None if patience_s is None else patience_s * 1000):
            if not os.read(heartbeat_fd, 4096):
                break
    finally:
        # Nothing is tidied up on purpose: whatever this would write is no longer ours.
        os._exit(EXIT_INTERRUPTED)
