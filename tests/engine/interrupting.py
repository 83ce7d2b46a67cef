"""Ways to end a run in the middle, for the tests of going on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def terminated_in(number: int, *kinds: type[nn.Module]) -> Iterator[None]:
    """Sends this process SIGTERM when the n-th module of a kind begins its pass that trains."""
    seen = 0

    def count(module: nn.Module, _: Any) -> None:
        nonlocal seen
        if torch.is_grad_enabled() and isinstance(module, kinds):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGTERM)

    hook = nn.modules.module.register_module_forward_pre_hook(count)
    try:
        yield
    finally:
        hook.remove()
