"""Supervised fine-tuning: cross-entropy on assistant turns, conversations packed side by side.

The loss is the mean over all assistant tokens of the batch (each token counts once, whatever the
length of its conversation), end-of-turn tokens included, so that the model learns to stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from training.engine.batching import PackedRow, Packing
from training.engine.checkpoint import Checkpoint
from training.engine.data import Tree, encode_conversations
from training.engine.distributed import add_up
from training.engine.dpo import ADAPTER
from training.engine.logprobs import states_at, token_logps
from training.engine.models import Base
from training.engine.preflight import announce, choose_packing, seed_everything
from training.engine.rundir import RunDir
from training.engine.sharding import own_groups
from training.engine.steps import Steps, batches
from training.engine.tuning import begin, load_trainable


def row_loss(base: Base, row: PackedRow, n_tokens: int) -> Tensor:
    """A row's part of the mean negative log-probability of a batch's `n_tokens` scored tokens."""
    placed = row.to(base.device)
    return -token_logps(base, placed, states_at(base, placed, placed.sources)).sum() / n_tokens


def train(run: RunDir) -> dict[str, Any]:
    """Train on data.train, an adapter or the whole base, and save it. Returns the result."""
    config = run.config
    seed_everything(config)
    run.events.write("phase", name="load")
    base = load_trainable(run)
    trees = encode_conversations(base, run.rows(config.data.train), config.data, run.events)

    trained = begin(base, config, ADAPTER)
    plan = batches(len(trees), config.optim.batch_size, config.optim.epochs, config.seed)
    plan = plan[: config.optim.max_steps]
    steps = Steps(run, trained.parameters, config.optim, total=len(plan))
    trainable = sum(parameter.numel() for parameter in trained.parameters.values())
    announce(run, base, total_steps=len(plan), rows=len(trees), trainable=trainable)
    packing = choose_packing(run, base, trees)

    with base.use(trained.adapter):
        checkpoint = steps.resume()
        run.events.write("phase", name="train")
        loss = fit(run, base, steps, trees, plan, packing, checkpoint)
    run.events.write("phase", name="save")
    return {
        "steps": steps.step,
        "rows": len({i for batch in plan[: steps.step] for i in batch}),
        "metrics": {"loss/train": loss},
        **trained.save(run),
    }


def fit(
    run: RunDir,
    base: Base,
    steps: Steps,
    trees: Sequence[Tree],
    plan: Sequence[Sequence[int]],
    packing: Packing,
    checkpoint: Checkpoint | None,
    beside: Mapping[str, Any] = {},
) -> float:
    """Every step of `plan` that is left after `checkpoint`. Returns the loss of the last one.

    plan: indices of the trees of each step. beside: plain JSON that checkpoints keep as well.
    """
    loss_of_step = 0.0 if checkpoint is None else float(checkpoint.state["loss"])
    for batch in plan[steps.step :]:
        # 1. pack the trees; the loss is normalised by the tokens of the whole batch
        chosen = [trees[i] for i in batch]
        n_tokens = sum(branch.n_scored for tree in chosen for branch in tree.branches)
        total = torch.zeros((), dtype=torch.float64)
        for row in (row for group in own_groups(base, chosen, packing) for row in group):
            steps.raise_if_stopped()
            # 2. their part of the cross-entropy of the scored tokens
            loss = row_loss(base, row, n_tokens)
            steps.check_finite(loss)
            loss.backward()
            total += loss.detach().cpu()
        add_up(total)
        loss_of_step = total.item()
        # 3. update
        taken = steps.take()
        # 4. log, save
        run.events.metrics(steps.step, {"loss/train": loss_of_step} | taken)
        steps.progress()
        if steps.reached({"loss": loss_of_step, **beside}):
            break
    return loss_of_step
