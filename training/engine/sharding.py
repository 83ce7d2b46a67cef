"""A base in parts: each process holds a share of every layer, and borrows the rest while it passes.

For a base that no device holds whole: FSDP2 (`torch.distributed.fsdp.fully_shard`, after Zhao et
al. 2023, arXiv 2304.11277) on its layers, frozen and unquantized. Adapter, embeddings and head stay
whole in every process, so that the gradients that are added up (`distributed`) are as they were.
`accelerate launch` with an FSDP config asks for it (docs/how-to/train-on-several-devices.md).

A layer's parts are collected by all processes together, so all of them make equally many passes:
one that is done with its share goes through the layers with nothing until the others are done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from training.engine import distributed
from training.engine.batching import PackedRow, Packing, pack_share
from training.engine.config import RunConfig
from training.engine.data import Tree
from training.engine.errors import ConfigError

#: The methods whose every pass goes through `own_groups`; decoding has a rhythm of its own.
METHODS = ("sft", "reward", "dpo", "pretrain")


def asked() -> bool:
    """Whether whoever started the processes wants the base in parts."""
    wanted = os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true")
    return wanted and distributed.size() > 1


def require_shardable(config: RunConfig) -> None:
    """Raise ConfigError for a run whose base cannot be held in parts."""
    if not asked():
        return
    if config.method not in METHODS:
        raise ConfigError(
            f"{config.method} needs the whole base in every process, and FSDP asks for parts; "
            f"in parts run {', '.join(METHODS)}. Launch without FSDP"
        )
    if config.tuning != "lora" or config.base.quantization != "none":
        raise ConfigError(
            f"tuning is {config.tuning!r} and base.quantization is {config.base.quantization!r}; "
            "with FSDP allowed: 'lora' on 'none'. Launch without FSDP: in 4 bits a base of 70 "
            "billion weights takes 40 GB, whole in every process"
        )


def shard(base: Any, device: torch.device) -> None:
    """Leave every process its part of each layer, on `device`, and all else there whole.

    Called once the adapters are on the base, which was loaded to the processor's memory.
    """
    # imported here: every run imports this module, and few are in parts
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    mesh = init_device_mesh(device.type, (distributed.size(),))
    adapters = {each for name in base.adapters for each in base.parameters(name)}
    for layer in base.backbone.layers:
        fully_shard(layer, mesh=mesh, ignored_params=adapters & set(layer.parameters()))
    for tensor in [*base.model.parameters(), *base.model.buffers()]:
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(device)
    base.device = device
    base.in_parts = True


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A weight with the other processes' parts of it."""
    collected: torch.Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return collected


def own_groups(base: Any, trees: Sequence[Tree], packing: Packing) -> Iterator[Sequence[PackedRow]]:
    """The groups of rows that fall to this process; in parts, idle passes follow them."""
    groups = pack_share(trees, packing)
    idle = distributed.largest(len(groups)) - len(groups) if base.in_parts else 0
    yield from groups
    for _ in range(idle):
        pass_idly(base, rows=1 if packing.shared else len(trees[0].branches))


def pass_idly(base: Any, rows: int) -> None:
    """As many passes as a group of so many rows makes, there and (with gradients) back."""
    token = torch.zeros(1, 1, dtype=torch.long, device=base.device)
    states = [base.hidden(token, token, None) for _ in range(rows)]
    if torch.is_grad_enabled():
        (torch.stack(states).sum() * 0.0).backward()
