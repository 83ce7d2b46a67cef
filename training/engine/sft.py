"""Supervised fine-tuning: cross-entropy on assistant turns, conversations packed side by side.

The loss is the mean over all assistant tokens of the batch (each token counts once, whatever the
length of its conversation), end-of-turn tokens included, so that the model learns to stop.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from training.engine.batching import PackedRow, pack
from training.engine.data import encode_conversations
from training.engine.dpo import ADAPTER
from training.engine.logprobs import row_states, token_logps
from training.engine.models import Base, load_base
from training.engine.preflight import announce, choose_packing, seed_everything
from training.engine.rundir import RunDir
from training.engine.steps import Steps, batches
from training.engine.tuning import begin


def row_loss(base: Base, row: PackedRow, n_tokens: int) -> Tensor:
    """A row's part of the mean negative log-probability of a batch's `n_tokens` scored tokens."""
    placed = row.to(base.device)
    return -token_logps(base, placed, row_states(base, placed)).sum() / n_tokens


def train(run: RunDir) -> dict[str, Any]:
    """Train on data.train, an adapter or the whole base, and save it. Returns the result."""
    config = run.config
    seed_everything(config)
    run.events.write("phase", name="load")
    base = load_base(
        run.base, gradient_checkpointing=config.gradient_checkpointing, tuning=config.tuning
    )
    trees = encode_conversations(base, run.rows(config.data.train), config.data, run.events)

    trained = begin(base, config, ADAPTER)
    plan = batches(len(trees), config.optim.batch_size, config.optim.epochs, config.seed)
    plan = plan[: config.optim.max_steps]
    steps = Steps(run, trained.parameters, config.optim, total=len(plan))
    trainable = sum(parameter.numel() for parameter in trained.parameters.values())
    announce(run, base, total_steps=len(plan), rows=len(trees), trainable=trainable)
    packing = choose_packing(run, base, trees)

    loss_of_step = 0.0
    with base.use(trained.adapter):
        checkpoint = steps.resume()
        if checkpoint is not None:
            loss_of_step = float(checkpoint.state["loss"])
        run.events.write("phase", name="train")
        for batch in plan[steps.step :]:
            # 1. pack the conversations; the loss is normalised by the tokens of the whole batch
            rows = [row for group in pack([trees[i] for i in batch], packing) for row in group]
            n_tokens = sum(len(row.targets) for row in rows)
            loss_of_step = 0.0
            for row in rows:
                steps.raise_if_stopped()
                # 2. their part of the cross-entropy of the assistant's tokens
                loss = row_loss(base, row, n_tokens)
                steps.check_finite(loss)
                loss.backward()
                loss_of_step += loss.item()
            # 3. update
            taken = steps.take()
            # 4. log, save
            run.events.metrics(steps.step, {"loss/train": loss_of_step} | taken)
            steps.progress()
            if steps.reached({"loss": loss_of_step}):
                break
    run.events.write("phase", name="save")
    metrics = {"loss/train": loss_of_step}
    return {
        "steps": steps.step,
        "rows": len({i for batch in plan[: steps.step] for i in batch}),
        "metrics": metrics,
        **trained.save(run),
    }
