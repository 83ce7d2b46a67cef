"""One process of several: `python -m tests.engine.one_of_several RANK SIZE RUN_DIR…`.

Does one run after the other, as torchrun would start each of them, and prints a line of exit
statuses; libraries are imported once. TROUBLE holds a word for each run, of what happens to the
last process at the run's third loss: "nan" makes it NaN, "death" ends the process. A run whose
folder's name begins with "parts" is launched as by an FSDP config.
"""

from __future__ import annotations

import os
import sys
from itertools import zip_longest
from typing import Any

from tests.faults.servers import free_port
from training.engine.__main__ import main
from training.engine.steps import Steps

CHECK = Steps.check_finite


def make_trouble(kind: str) -> None:
    seen = 0

    def checked(self: Steps, loss: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == 3 and kind == "death":
            os._exit(9)
        CHECK(self, loss * float("nan") if seen == 3 else loss)

    Steps.check_finite = checked  # type: ignore[method-assign]


def run(rank: int, size: int, folders: list[str]) -> list[int]:
    os.environ |= {"RANK": f"{rank}", "WORLD_SIZE": f"{size}", "MASTER_ADDR": "127.0.0.1"}
    troubles = os.environ.get("TROUBLE", "").split() if rank == size - 1 else []
    statuses = []
    for folder, trouble in zip_longest(folders, troubles):
        if trouble:
            make_trouble(trouble)
        path, port = folder.rsplit(":", 1)
        os.environ["MASTER_PORT"] = port
        os.environ["ACCELERATE_USE_FSDP"] = str("/parts" in path)
        statuses.append(main(["run", path]))
    return statuses


def command(rank: int, size: int, folders: list[str]) -> list[str]:
    """The command of one process; all of them get the same `folders`, each with its port."""
    return [sys.executable, "-m", "tests.engine.one_of_several", f"{rank}", f"{size}", *folders]


def with_ports(folders: list[Any]) -> list[str]:
    return [f"{folder}:{free_port()}" for folder in folders]


if __name__ == "__main__":
    print(*run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
