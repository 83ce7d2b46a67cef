"""The reward model: Bradley-Terry on pairs that share their prompt.

Differs from Ouyang et al. 2022 (arXiv 2203.02155): the base is frozen and only a LoRA adapter and a
scalar head are trained; the head starts at zero instead of N(0, 1/√(d+1)), so that the first loss
is exactly ln 2 and can be checked; P(chosen better) may be soft. The score is read at the explicit
last token, never at "the last token that is not padding".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.engine.batching import PackedRow, Packing, pack
from training.engine.config import AdapterConfig
from training.engine.data import Pair, Tree, encode_pairs
from training.engine.held_out import HeldOut
from training.engine.intervals import clustered_interval, right
from training.engine.logprobs import branch_table, row_states
from training.engine.losses import accuracy, reward_losses
from training.engine.models import Base, ScalarHead, load_base, load_reward_head
from training.engine.preflight import (
    announce,
    choose_packing,
    expect_step_zero,
    seed_everything,
)
from training.engine.rundir import RunDir
from training.engine.steps import Steps, batches
from training.engine.stopping import raise_if_stopped

ADAPTER = "reward"


def group_scores(
    base: Base, head: ScalarHead, group: Sequence[PackedRow]
) -> tuple[list[int], Tensor]:
    """Scores of a group's branches under the active adapter. Returns: (tree indices, (n, K))"""
    scores = []
    for row in group:
        placed = row.to(base.device)
        scores.append(head(row_states(base, placed)[placed.last]))
    return branch_table(group, scores)


@torch.no_grad()
def tree_scores(base: Base, head: ScalarHead, trees: Sequence[Tree], packing: Packing) -> Tensor:
    """Scores of every branch: the one scoring function of training, evaluation and PPO.

    Returns: (len(trees), K) on the CPU
    """
    result = torch.zeros(len(trees), len(trees[0].branches))
    for group in pack(trees, packing):
        raise_if_stopped()
        indices, table = group_scores(base, head, group)
        result[indices] = table.cpu()
    return result


def attach(base: Base, folder: str, name: str = ADAPTER) -> ScalarHead:
    """Put a saved reward adapter on the base under `name`; returns its score head."""
    base.add_adapter(name, AdapterConfig(), init_from=folder)
    return load_reward_head(Path(folder), base.hidden_size).to(base.device)


def margins_of(
    base: Base, head: ScalarHead, pairs: Sequence[Pair], packing: Packing
) -> list[float]:
    """How much higher each pair's chosen response scores than the rejected one."""
    scores = tree_scores(base, head, [pair.tree for pair in pairs], packing)
    margins: list[float] = (scores[:, 0] - scores[:, 1]).tolist()
    return margins


def held_out_metrics(
    base: Base, head: ScalarHead, pairs: Sequence[Pair], packing: Packing
) -> dict[str, float]:
    """Accuracy with its interval clustered by prompt, and the mean margin."""
    margins = margins_of(base, head, pairs, packing)
    mean, low, high = clustered_interval(right(margins), [pair.prompt_id for pair in pairs])
    return {
        "reward/accuracy": mean,
        "reward/accuracy_low": low,
        "reward/accuracy_high": high,
        "reward/margin": sum(margins) / len(margins),
    }


def train(run: RunDir) -> dict[str, Any]:
    """Train the adapter and head on data.train, measure on data.test, save. Returns the result."""
    config = run.config
    assert config.reward is not None  # noqa: S101 - the config guarantees it
    seed_everything(config)
    run.events.write("phase", name="load")
    base = load_base(run.base, gradient_checkpointing=config.gradient_checkpointing)
    pairs = encode_pairs(base, run.rows(config.data.train), config.data, run.events, "train")
    held_out = test_pairs(run, base)

    base.add_adapter(ADAPTER, config.adapter, init_from=config.adapter.init_from)
    head = ScalarHead(base.hidden_size, std=0.0).to(base.device)
    parameters = base.train_only(ADAPTER)
    plan = batches(len(pairs), config.optim.batch_size, config.optim.epochs, config.seed)
    plan = plan[: config.optim.max_steps]
    named = {f"lora.{i}": p for i, p in enumerate(parameters)} | {"head": head.weight}
    steps = Steps(run, named, config.optim, total=len(plan))
    trainable = sum(parameter.numel() for parameter in named.values())
    announce(run, base, total_steps=len(plan), rows=len(pairs), trainable=trainable)

    with base.use(ADAPTER):
        packing = choose_packing(run, base, [pair.tree for pair in pairs])
        checkpoint = steps.resume()
        loss_of_step = float(checkpoint.state["loss"]) if checkpoint is not None else 0.0
        watched = HeldOut(
            run,
            steps,
            held_out,
            lambda pairs: margins_of(base, head, pairs, packing),
            total=len(plan),
        )
        run.events.write("phase", name="train")
        for batch in plan[steps.step :]:
            on_held_out = watched.values()
            # 1. score chosen and rejected in one packed pass, a group of rows at a time
            chosen = [pairs[index] for index in batch]
            losses, margins = torch.zeros(len(batch)), torch.zeros(len(batch))
            for group in pack([pair.tree for pair in chosen], packing):
                steps.raise_if_stopped()
                indices, scores = group_scores(base, head, group)
                # 2. Bradley-Terry loss, normalised by the whole batch
                probabilities = torch.tensor([chosen[i].probability for i in indices])
                group_losses, group_margins = reward_losses(
                    scores[:, 0],
                    scores[:, 1],
                    probabilities.to(scores.device),
                    centring=config.reward.centring,
                )
                loss = group_losses.sum() / len(batch)
                steps.check_finite(loss)
                loss.backward()
                losses[indices] = group_losses.detach().cpu()
                margins[indices] = group_margins.detach().cpu()
            if steps.step == 0:
                expect_step_zero(
                    config,
                    loss=losses.mean().item(),
                    margin=margins.abs().max().item(),
                    what="the reward model",
                )
            # 3. update
            taken = steps.take()
            # 4. log, save
            loss_of_step = losses.mean().item()
            values = {
                "loss/train": loss_of_step,
                "reward/accuracy": accuracy(margins).item(),
                "reward/margin": margins.mean().item(),
            }
            run.events.metrics(steps.step, values | taken | on_held_out)
            steps.progress()
            if steps.reached({"loss": loss_of_step}):
                break

        metrics = {"loss/train": loss_of_step}
        if held_out:
            run.events.write("phase", name="evaluate")
            with steps.weights_at_rest():
                metrics |= held_out_metrics(base, head, held_out, packing)
    run.events.write("phase", name="save")
    adapter = run.attempt_path / "adapter"
    base.save_reward_adapter(ADAPTER, head, adapter)
    return {
        "steps": steps.step,
        "rows": len({i for batch in plan for i in batch}),
        "metrics": metrics,
        "adapter": run.name_of(adapter),
    }


def test_pairs(run: RunDir, base: Base) -> list[Pair]:
    """The held-out pairs; none where the run has no such file, or an empty one."""
    data = run.config.data
    path = run.path / data.test
    if not path.is_file() or path.stat().st_size == 0:
        return []
    rows = run.rows(data.test)[: data.max_test_rows]
    return encode_pairs(base, rows, data, run.events, "test")
