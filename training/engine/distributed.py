"""Several processes at one run: each takes a share of every batch, and all hold the same weights.

torchrun and `accelerate launch` start them and say in the environment how many they are
(docs/how-to/train-on-several-devices.md). An optimizer step is that of one process: a loss is
normalised by its whole batch before the batch is shared out, so gradients are added up, not
averaged, in one flat buffer. What is known row by row (losses, log-probs, scores, answers) goes
into tables that are zero where another process fills them, and that are added up too: every process
then holds the same figures and comes to the same decisions. The first one, the leader, alone writes
to the run folder.

In a run of one process nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.engine import stopping
from training.engine.errors import Interrupted, UsageError


def join() -> None:
    """Meet the other processes that the environment tells of. Raises UsageError where there is no
    meeting them."""
    missing = [key for key in ("RANK", "MASTER_ADDR", "MASTER_PORT") if key not in os.environ]
    if missing:
        raise UsageError(
            f"WORLD_SIZE asks for several processes, and {', '.join(missing)} are not set: start "
            "them by torchrun or `accelerate launch`, or unset WORLD_SIZE"
        )
    stopping.take_signals_together()
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} could not meet the others "
            f"at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: {error}"
        ) from error


def leave() -> None:
    """End the connection to the others, so that none waits for this process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def share(costs: Sequence[int]) -> list[int]:
    """Which of these items this process takes, in order: the costliest go first, each to whichever
    process has least to do by then."""
    loads = [0] * size()
    own = []
    for item in sorted(range(len(costs)), key=lambda item: (-costs[item], item)):
        least = loads.index(min(loads))
        loads[least] += costs[item]
        if least == rank():
            own.append(item)
    return sorted(own)


def add_up(*tables: Tensor) -> None:
    """Add each table over the processes, in place. All processes hold tables of the same shapes."""
    if size() > 1:
        for table in tables:
            _reduce(table, dist.ReduceOp.SUM)


def add_up_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add every gradient over the processes, in one flat buffer for each device and type.

    A parameter that got no gradient in any process keeps none.
    """
    if size() == 1:
        return
    known = list(parameters)
    reached = torch.tensor([parameter.grad is not None for parameter in known], dtype=torch.int32)
    _reduce(reached, dist.ReduceOp.MAX)
    kinds: dict[tuple[torch.device, torch.dtype], list[nn.Parameter]] = {}
    for parameter, some in zip(known, reached.tolist(), strict=True):
        if some:
            kinds.setdefault((parameter.device, parameter.dtype), []).append(parameter)
    for group in kinds.values():
        each = [p.grad if p.grad is not None else torch.zeros_like(p) for p in group]
        flat = torch.cat([gradient.reshape(-1) for gradient in each])
        _reduce(flat, dist.ReduceOp.SUM)
        parts = flat.split([parameter.numel() for parameter in group])
        for parameter, part in zip(group, parts, strict=True):
            parameter.grad = part.view_as(parameter)


def equalise(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the leader's values of these parameters."""
    if size() > 1:
        for parameter in parameters:
            _guarded(dist.broadcast, parameter.data, src=0)


def largest(number: int) -> int:
    """The largest of what the processes say."""
    if size() == 1:
        return number
    said = torch.tensor([number], dtype=torch.int64)
    _reduce(said, dist.ReduceOp.MAX)
    return int(said)


def anyone(flag: bool) -> bool:
    """Whether some process says so."""
    return bool(largest(int(flag)))


def everyone(flag: bool) -> bool:
    """Whether all processes say so."""
    return not anyone(not flag)


def agree_to_stop() -> None:
    """Where any process was asked to stop, all of them stop here.

    Called between two optimizer steps. One that stopped elsewhere would leave the others waiting
    for its share of a step.
    """
    if size() > 1 and anyone(stopping.asked.is_set()):
        stopping.stop_requested.set()


def _reduce(table: Tensor, operation: dist.ReduceOp.RedOpType) -> None:
    _guarded(dist.all_reduce, table, op=operation)


def _guarded(collective: object, table: Tensor, **how: object) -> None:
    """A collective call; where another process is gone the run goes on from its checkpoint."""
    assert callable(collective)  # noqa: S101 - narrows the type
    try:
        collective(table, **how)
    except RuntimeError as error:
        raise Interrupted(
            f"another process of this run ended ({str(error).strip().splitlines()[0]}); its own "
            "words say why, and the next start goes on from the newest checkpoint"
        ) from error
