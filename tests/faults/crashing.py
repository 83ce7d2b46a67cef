"""Death at a chosen point: the process ends with os._exit just before or after a function.

A point is "before:" or "after:" and a dotted name, optionally with one keyword that the call must
have: `after:training.services.queueing.transition?to=succeeded`. It strikes once: whoever comes
second finds the flag file there and passes.

python -m tests.faults.crashing POINT FLAG MODULE ARGUMENT …   runs a module with the point armed.
"""

from __future__ import annotations

import functools
import importlib
import os
import runpy
import sys
from collections.abc import Callable
from typing import Any

#: What a process that died here leaves as its exit status.
STATUS = 9
#: Whose modules may hold a name of the function.
OURS = ("annotate", "rlhf_platform", "training", "tests")


def arm(point: str, flag: str) -> None:
    """Have this process die at `point`, unless the file `flag` says that one has died already."""
    moment, _, rest = point.partition(":")
    name, _, condition = rest.partition("?")
    if moment not in ("before", "after"):
        raise ValueError(f"{point!r} begins neither with before: nor with after:")
    owner, attribute = owner_of(name)
    original = getattr(owner, attribute)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        wanted = (
            not condition
            or str(kwargs.get(condition.partition("=")[0])) == (condition.partition("=")[2])
        )
        if moment == "before" and wanted:
            die_once(flag)
        made = original(*args, **kwargs)
        if moment == "after" and wanted:
            die_once(flag)
        return made

    setattr(owner, attribute, wrapped)
    if not isinstance(owner, type):
        replace_everywhere(original, wrapped)


def owner_of(name: str) -> tuple[Any, str]:
    """The module or class that holds a dotted name, and the last part of the name."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            owner: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:-1]:
            owner = getattr(owner, part)
        return owner, parts[-1]
    raise ValueError(f"{name} is in no module")


def replace_everywhere(original: Callable[..., Any], wrapped: Callable[..., Any]) -> None:
    """Modules that imported the function by its name call the wrapped one too."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in OURS:
            continue
        for key, value in list(vars(module).items()):
            if value is original:
                setattr(module, key, wrapped)


def die_once(flag: str) -> None:
    try:
        descriptor = os.open(flag, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return
    os.close(descriptor)
    os._exit(STATUS)


if __name__ == "__main__":
    _, point, flag, module, *arguments = sys.argv
    arm(point, flag)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
