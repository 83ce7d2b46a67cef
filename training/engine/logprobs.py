"""Log-probabilities of the tokens that are scored, and of nothing else.

The language-model head is applied only where a token is scored, in chunks, and its backward pass
is prepared during the forward pass: for one number per token, d logp / d h = W[target] − p·W needs
no logits to be kept. Memory stays at one chunk of logits whatever the batch, and where the head is
trained too at one more gradient of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from training.engine.batching import PackedRow, Packing, pack
from training.engine.data import Branch, Tree
from training.engine.distributed import add_up
from training.engine.models import Base
from training.engine.products import times
from training.engine.sharding import own_groups
from training.engine.stopping import raise_if_stopped

#: Scored tokens per chunk of logits: 128 × 49,152 × 4 bytes = 25 MB for SmolLM2. From 32 MB on
#: glibc asks the kernel for fresh pages each time (3 % of a pass, measured).
CHUNK = 128
#: Packed and plain log-probs of a response may differ by this much in fp32.
PACKING_TOLERANCE = 1e-3
#: Tokens of prompt and of answer on which the head is compared with the model's own.
PROBE = 32


class TokenLogProbs(torch.autograd.Function):
    """log softmax(h·Wᵀ / temperature)[target] per token, in fp32.

    With the head frozen d logp / d h is ready when the forward pass is, and only that is kept. A
    head that is trained gets d logp / d W = (onehot(target) − p)·hᵀ / temperature, which has to
    wait for the gradient of the loss: a chunk's probabilities are computed once more on the way
    back. A tied head's gradient is added to that of the embeddings by autograd.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        """states: (N, H). weight: (V, H). targets: (N,). Returns: (N,)"""
        trains_head = ctx.needs_input_grad[1]
        keep = ctx.needs_input_grad[0] and not trains_head
        logps = torch.empty(len(targets), dtype=torch.float32, device=states.device)
        gradient = torch.empty_like(states) if keep else None
        for start in range(0, len(targets), CHUNK):
            stop = start + CHUNK
            part, wanted = states[start:stop], targets[start:stop]
            logits = times(part, weight).float().div_(temperature)  # (C, V)
            chosen = logits.gather(1, wanted[:, None]).squeeze(1)
            normaliser = logits.logsumexp(dim=1)
            logps[start:stop] = chosen - normaliser
            if gradient is not None:
                probabilities = logits.sub_(normaliser[:, None]).exp_().to(weight.dtype)
                gradient[start:stop] = (
                    weight[wanted] - times(probabilities, weight.t())
                ) / temperature
        ctx.gradient, ctx.temperature = gradient, temperature
        if trains_head:
            ctx.save_for_backward(states, weight, targets)
        return logps

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        if ctx.gradient is not None:
            return ctx.gradient * grad[:, None].to(ctx.gradient.dtype), None, None, None
        states, weight, targets = ctx.saved_tensors
        of_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight)
        for start in range(0, len(targets), CHUNK):
            stop = start + CHUNK
            part, wanted = states[start:stop], targets[start:stop]
            logits = (part @ weight.t()).float().div_(ctx.temperature)  # (C, V)
            of_logits = logits.softmax(dim=1).neg_()
            of_logits.scatter_add_(1, wanted[:, None], torch.ones_like(of_logits[:, :1]))
            of_logits.mul_(grad[start:stop, None] / ctx.temperature)
            of_weight.addmm_(of_logits.to(weight.dtype).t(), part)
            if of_states is not None:
                of_states[start:stop] = of_logits.to(weight.dtype) @ weight
        return of_states, of_weight, None, None


def states_at(base: Base, row: PackedRow, places: Tensor) -> Tensor:
    """Hidden states of some of a row's tokens under the active adapter, which saves the others.

    places: (N,) as `row.sources` or `row.last`. Returns: (N, H)
    """
    mask = None if row.mask is None else row.mask[None, None]
    wanted, which = places.unique(return_inverse=True)
    states = base.hidden(
        row.input_ids[None], row.positions[None], mask, row.trees, common=row.common, wanted=wanted
    )
    return states[0][which]


def token_logps(base: Base, row: PackedRow, states: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probs of a row's scored tokens, from the states that predict them.

    states: (N, H), those of `row.sources`. Returns: (N,)
    """
    logps: Tensor = TokenLogProbs.apply(states, base.head_weight(), row.targets, temperature)
    return logps


def branch_sums(values: Tensor, row: PackedRow) -> Tensor:
    """Sum of per-token values over each branch. values: (N,). Returns: (B,)"""
    sums = torch.zeros(len(row.branches), dtype=values.dtype, device=values.device)
    return sums.index_add(0, row.branch_of, values)


def branch_table(group: Sequence[PackedRow], values: Sequence[Tensor]) -> tuple[list[int], Tensor]:
    """Per-branch values of a group of rows, one line per tree.

    values: for each row (B,), in the order of `row.branches`. Every tree has the same K branches.
    Returns: (indices of the n trees in the batch, (n, K))
    """
    where = [place for row in group for place in row.branches]
    trees = sorted({tree for tree, _ in where})
    order = sorted(range(len(where)), key=lambda index: where[index])
    flat = torch.cat(list(values))
    table = flat[torch.tensor(order, device=flat.device)].view(len(trees), -1)
    return trees, table


def group_logps(
    base: Base, group: Sequence[PackedRow], temperature: float = 1.0
) -> tuple[list[int], Tensor]:
    """Summed log-probs of a group's branches under the active adapter, with gradient.

    Returns: (indices of the n trees, (n, K)) on the base's device
    """
    sums = []
    for row in group:
        placed = row.to(base.device)
        logps = token_logps(base, placed, states_at(base, placed, placed.sources), temperature)
        sums.append(branch_sums(logps, placed))
    return branch_table(group, sums)


@torch.no_grad()
def response_logps(base: Base, trees: Sequence[Tree], packing: Packing) -> Tensor:
    """Summed log-probs of every branch of every tree, without gradient.

    All trees have the same number of branches K. Returns: (len(trees), K) on the CPU
    """
    result = _logps_of(base, trees, own_groups(base, trees, packing))
    add_up(result)
    return result


def _logps_of(base: Base, trees: Sequence[Tree], groups: Iterable[Sequence[PackedRow]]) -> Tensor:
    """`response_logps` of the trees in these groups, zero for the others."""
    result = torch.zeros(len(trees), len(trees[0].branches))
    for group in groups:
        raise_if_stopped()
        indices, table = group_logps(base, group)
        result[indices] = table.cpu()
    return result


@torch.no_grad()
def own_log_prob_error(base: Base, tree: Tree) -> float:
    """Largest difference between our log-prob of a token and the model's own (nats).

    A few tokens show it: all of them pass through the same head.
    """
    few = Tree(tree.prompt[-PROBE:], (Branch(tree.branches[0].tokens[:PROBE]),))
    row = pack([few], Packing(few.length, shared=False))[0][0].to(base.device)
    ours = token_logps(base, row, states_at(base, row, row.sources))
    logits = base.causal(input_ids=row.input_ids[None]).logits[0, row.sources].float()
    theirs = logits.log_softmax(dim=-1).gather(1, row.targets[:, None]).squeeze(1)
    return float((ours - theirs).abs().max())


@torch.no_grad()
def packing_error(base: Base, trees: Sequence[Tree]) -> float:
    """Largest difference between packed and plain response log-probs (nats).

    Sliding-window attention breaks packing silently, recurrent layers cannot obey a mask at all:
    whoever is about to pack asks this first, on two trees. Several processes do not share these
    out: the point is two trees in one row.
    """
    budget = sum(tree.length for tree in trees)
    packed = _logps_of(base, trees, pack(trees, Packing(budget, shared=True)))
    plain = _logps_of(base, trees, pack(trees, Packing(budget, shared=False)))
    return float((packed - plain).abs().max())
