"""Start a program that is asked to stop when its parent is gone, even by kill -9 (Linux).

python -m rlhf_platform.tied PARENT_PID PROGRAM [ARGUMENT …]
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

#: prctl's option number (linux/prctl.h); what it sets survives an exec.
PR_SET_PDEATHSIG = 1


def tied(command: Sequence[str]) -> list[str]:
    """The command that runs `command` tied to this process."""
    return [sys.executable, "-m", "rlhf_platform.tied", str(os.getpid()), *command]


def main(arguments: Sequence[str]) -> None:
    parent, program = int(arguments[0]), list(arguments[1:])
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(f"{program[0]}: its parent ended before it began")
    os.execvp(program[0], program)  # noqa: S606 - a list of words, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
