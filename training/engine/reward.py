"""The reward model: Bradley-Terry on pairs that share their prompt, and what ties and doubt add.

Differs from Ouyang et al. 2022 (arXiv 2203.02155): the base is frozen and only a LoRA adapter and
linear heads are trained, unless `tuning` is full; heads start at zero instead of N(0, 1/√(d+1)), so
that the first loss is known in closed form (ln 2 for plain pairs) and can be checked; P(chosen
better) may be soft, rows may carry weights, margins and ties (docs/methods/reward.md). The score is
read at the explicit last token, never at "the last token that is not padding".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.engine.batching import PackedRow, Packing
from training.engine.config import AdapterConfig, RewardConfig
from training.engine.config_preferences import TIE_MODELS
from training.engine.data import Label, Pair, Tree, encode_pairs, relative_weights
from training.engine.distributed import add_up
from training.engine.errors import DataError
from training.engine.held_out import HeldOut
from training.engine.intervals import clustered_interval, right, with_ends
from training.engine.logprobs import branch_table, states_at
from training.engine.losses import accuracy, reward_losses
from training.engine.models import Base, ScalarHead
from training.engine.preflight import (
    announce,
    choose_packing,
    expect_step_zero,
    seed_everything,
)
from training.engine.rundir import RunDir
from training.engine.scores import RewardScale, ScoreHead, load_score_head
from training.engine.sharding import own_groups
from training.engine.steps import Steps, batches
from training.engine.stopping import raise_if_stopped
from training.engine.ties import TieModel, start_value, tie_losses
from training.engine.tuning import begin, load_trainable

ADAPTER = "reward"
#: Chosen responses on which scores are normalised: the standard error of their mean is then 4 % of
#: their deviation, and they take a small part of the time that training took.
REFERENCE_SAMPLES = 512
#: Sets the draws of the heads' weights apart from those of the batches.
HEADS = 5_000_011


def group_values(
    base: Base, read: Callable[[Tensor], Tensor], group: Sequence[PackedRow]
) -> tuple[list[int], Tensor]:
    """What `read` makes of the last state of a group's branches under the active adapter.

    read: (N, H) to (N,) or (N, K). Returns: (n tree indices, (n, branches) or (n, branches, K))
    """
    values = []
    for row in group:
        placed = row.to(base.device)
        values.append(read(states_at(base, placed, placed.last)))
    indices, table = branch_table(group, values)
    return indices, table.view(len(indices), -1, *values[0].shape[1:])


@torch.no_grad()
def tree_values(
    base: Base, read: Callable[[Tensor], Tensor], trees: Sequence[Tree], packing: Packing
) -> Tensor:
    """`group_values` of all trees, on the CPU: (len(trees), branches[, K])"""
    shape = read(torch.zeros(1, base.hidden_size, device=base.device)).shape[1:]
    values = torch.zeros(len(trees), len(trees[0].branches), *shape)
    for group in own_groups(base, trees, packing):
        raise_if_stopped()
        indices, table = group_values(base, read, group)
        values[indices] = table.cpu()
    add_up(values)
    return values


def tree_scores(base: Base, head: ScalarHead, trees: Sequence[Tree], packing: Packing) -> Tensor:
    """Scores of every branch: the one scoring function of training, evaluation and PPO.

    Combined, normalised and conservative as the head's scale says.
    Returns: (len(trees), branches) on the CPU
    """
    return tree_values(base, head, trees, packing)


def attach(base: Base, folder: str, name: str = ADAPTER) -> ScoreHead:
    """Put a saved reward adapter on the base under `name`; returns its score head."""
    base.add_adapter(name, AdapterConfig(), init_from=folder)
    return load_score_head(Path(folder), base.hidden_size).to(base.device)


def margins_of(
    base: Base, head: ScalarHead, pairs: Sequence[Pair], packing: Packing
) -> list[float]:
    """How much higher each pair's chosen response scores than the rejected one."""
    scores = tree_scores(base, head, [pair.tree for pair in pairs], packing)
    margins: list[float] = (scores[:, 0] - scores[:, 1]).tolist()
    return margins


def held_out_metrics(
    base: Base, head: ScoreHead, pairs: Sequence[Pair], packing: Packing
) -> dict[str, float]:
    """Accuracy with its interval clustered by prompt, mean margin, and what heads disagree."""
    return held_out_figures(base, head, pairs, packing)[0]


def held_out_figures(
    base: Base, head: ScoreHead, pairs: Sequence[Pair], packing: Packing
) -> tuple[dict[str, float], list[float]]:
    """`held_out_metrics`, and the margin of each pair."""
    values = tree_values(base, head.each, [pair.tree for pair in pairs], packing)
    scores = head.combine(values)
    margins = (scores[:, 0] - scores[:, 1]).tolist()
    accuracy = clustered_interval(right(margins), [pair.prompt_id for pair in pairs])
    metrics = {
        **with_ends("reward/accuracy", accuracy),
        "reward/margin": sum(margins) / len(margins),
    }
    if values.shape[-1] > 1:
        metrics["reward/disagreement"] = head.disagreement(values).mean().item()
    return metrics, margins


def row_weights(pairs: Sequence[Pair], *, heads: int, seed: int) -> Tensor:
    """Weight of every row for every head, with mean 1 over the rows. Returns: (len(pairs), heads)

    Several heads each get a Bayesian bootstrap of the prompts (Rubin 1981: weights from Exp(1)), so
    that they differ from the first step on although they all start at zero.
    """
    weights = torch.tensor(relative_weights(pairs))[:, None]
    if heads == 1:
        return weights
    generator = torch.Generator().manual_seed((seed + HEADS) % 2**63)
    prompts = {name: number for number, name in enumerate({p.prompt_id: None for p in pairs})}
    drawn = torch.empty(len(prompts), heads).exponential_(generator=generator)
    weights = weights * drawn[[prompts[pair.prompt_id] for pair in pairs]]
    return weights / weights.mean(dim=0)


def tie_model(reward: RewardConfig, pairs: Sequence[Pair]) -> TieModel | None:
    """The tie model that the config asks for, started where equal scores tie as often as the rows.

    Raises DataError where the rows cannot tell its parameter.
    """
    if reward.ties not in TIE_MODELS:
        return None
    if reward.tie_parameter is not None:
        return TieModel(reward.ties, reward.tie_parameter, learnt=False)
    weights = relative_weights(pairs)
    share = sum(w * p.label.tie for w, p in zip(weights, pairs, strict=True)) / len(pairs)
    if not 0.0 < share < 1.0:
        raise DataError(
            f"reward.ties is {reward.ties}, and {'all' if share else 'none'} of the training rows' "
            "judgments are ties: there is nothing to learn its parameter from; give "
            "reward.tie_parameter, or set reward.ties to skip"
        )
    return TieModel(reward.ties, start_value(reward.ties, share), learnt=True)


def losses_of(
    labels: Sequence[Label], scores: Tensor, ties: TieModel | None, reward: RewardConfig
) -> tuple[Tensor, Tensor]:
    """Loss and margin of pairs for every head. scores: (B, 2, K). Returns: (B, K), (B, K)"""

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, device=scores.device)[:, None]

    probabilities = column([label.probability for label in labels])
    chosen, rejected = scores[:, 0], scores[:, 1]
    if ties is not None:
        shares = column([label.tie for label in labels])
        return tie_losses(ties, chosen, rejected, probabilities, shares, centring=reward.centring)
    offsets = column([label.margin for label in labels]) if reward.margin else None
    return reward_losses(chosen, rejected, probabilities, centring=reward.centring, offsets=offsets)


def train(run: RunDir) -> dict[str, Any]:
    """Train adapter (or base) and head on data.train, measure on data.test, save.

    Returns the result.
    """
    config = run.config
    reward = config.reward
    assert reward is not None  # noqa: S101 - the config guarantees it
    seed_everything(config)
    run.events.write("phase", name="load")
    base = load_trainable(run)
    pairs = encode_pairs(
        base,
        run.rows(config.data.train),
        config.data,
        run.events,
        "train",
        ties=reward.ties != "skip",
    )
    if reward.margin:
        require_margins(pairs, "reward.margin")
    held_out = test_pairs(run, base)
    ties = tie_model(reward, pairs)

    trained = begin(base, config, ADAPTER)
    head = ScoreHead(base.hidden_size, heads=reward.ensemble).to(base.device)
    head.scale = RewardScale.plain(reward.ensemble, conservative=reward.conservative)
    weights = row_weights(pairs, heads=reward.ensemble, seed=config.seed)
    plan = batches(len(pairs), config.optim.batch_size, config.optim.epochs, config.seed)
    plan = plan[: config.optim.max_steps]
    named = trained.parameters | {"head": head.weight}
    if ties is not None:
        ties.to(base.device)
        if ties.free.requires_grad:
            named["tie"] = ties.free
    steps = Steps(run, named, config.optim, total=len(plan))
    trainable = sum(parameter.numel() for parameter in named.values())
    announce(run, base, total_steps=len(plan), rows=len(pairs), trainable=trainable)

    with base.use(trained.adapter):
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
            labels = [pair.label for pair in chosen]
            values = torch.zeros(len(batch), 2, reward.ensemble)
            losses, shares = torch.zeros(len(batch), reward.ensemble), weights[batch]
            for group in own_groups(base, [pair.tree for pair in chosen], packing):
                steps.raise_if_stopped()
                indices, scores = group_values(base, head.each, group)
                # 2. the weighted loss of every head, normalised by the whole batch: weights have
                # mean 1 over all rows, so a batch of trusted rows moves more than one of doubted
                group_losses, _ = losses_of([labels[i] for i in indices], scores, ties, reward)
                weighted = shares[indices].to(scores.device) * group_losses
                loss = weighted.sum() / (len(batch) * reward.ensemble)
                steps.check_finite(loss)
                loss.backward()
                losses[indices] = group_losses.detach().cpu()
                values[indices] = scores.detach().cpu()
            add_up(losses, values)
            if steps.step == 0:
                equal, _ = losses_of(labels, torch.zeros_like(values), cpu_copy(ties), reward)
                expect_step_zero(
                    config,
                    loss=losses.mean().item(),
                    expected=equal.mean().item(),
                    margin=(values[:, 0] - values[:, 1]).abs().max().item(),
                    what="the reward model",
                )
            # 3. update
            taken = steps.take()
            # 4. log, save
            loss_of_step = ((shares * losses).sum() / shares.sum()).item()
            measured = {"loss/train": loss_of_step} | step_metrics(head, labels, values)
            if ties is not None:
                measured["reward/tie_parameter"] = ties.value
            run.events.metrics(steps.step, measured | taken | on_held_out)
            steps.progress()
            if steps.reached({"loss": loss_of_step}):
                break

        metrics = {"loss/train": loss_of_step}
        if ties is not None:
            metrics["reward/tie_parameter"] = ties.value
        if reward.normalize != "none":
            run.events.write("phase", name="normalise")
            with steps.weights_at_rest():
                metrics |= normalise(run, base, head, pairs, packing)
        if held_out:
            run.events.write("phase", name="evaluate")
            with steps.weights_at_rest():
                metrics |= held_out_metrics(base, head, held_out, packing)
    run.events.write("phase", name="save")
    return {
        "steps": steps.step,
        "rows": len({i for batch in plan[: steps.step] for i in batch}),
        "metrics": metrics,
        **trained.save(run, head),
    }


def step_metrics(head: ScoreHead, labels: Sequence[Label], values: Tensor) -> dict[str, float]:
    """Figures of a batch from what the heads said. Ties have no right side and count for none.

    values: (B, 2, K)
    """
    metrics: dict[str, float] = {}
    means = values.mean(dim=-1)
    decided = torch.tensor([not label.undecided for label in labels])
    if decided.any():
        margins = (means[:, 0] - means[:, 1])[decided]
        metrics["reward/accuracy"] = accuracy(margins).item()
        metrics["reward/margin"] = margins.mean().item()
    if values.shape[-1] > 1:
        metrics["reward/disagreement"] = head.disagreement(values).mean().item()
    return metrics


def cpu_copy(ties: TieModel | None) -> TieModel | None:
    """The same tie model where figures are computed."""
    return None if ties is None else TieModel(ties.kind, ties.value, learnt=False)


def normalise(
    run: RunDir, base: Base, head: ScoreHead, pairs: Sequence[Pair], packing: Packing
) -> dict[str, float]:
    """Give scores of chosen training responses mean 0 (and deviation 1); returns what they were."""
    reward = run.config.reward
    assert reward is not None  # noqa: S101 - the config guarantees it
    (order,) = batches(len(pairs), len(pairs), 1, run.config.seed)
    sampled = [pairs[index].tree for index in order[:REFERENCE_SAMPLES]]
    answers = [Tree(tree.prompt, tree.branches[:1]) for tree in sampled]
    values = tree_values(base, head.each, answers, packing)[:, 0]
    before = values.mean(dim=-1)
    head.normalise(values, deviation=reward.normalize == "mean_std")
    return {
        "reward/reference_mean": before.mean().item(),
        "reward/reference_std": before.std(correction=0).item(),
    }


def require_margins(pairs: Sequence[Pair], name: str) -> None:
    """Raise DataError where a setting asks for margins that no row has."""
    if not any(pair.label.margin for pair in pairs):
        raise DataError(
            f"{name} is true, and no training row has a margin above 0; set it to false, or give "
            "rows a margin"
        )


def test_pairs(run: RunDir, base: Base) -> list[Pair]:
    """The held-out pairs; none where the run has no such file, or an empty one."""
    rows = run.held_out_rows()
    return encode_pairs(base, rows, run.config.data, run.events, "test") if rows else []
