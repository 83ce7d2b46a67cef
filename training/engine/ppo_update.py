"""PPO's update: clipped losses of policy and value over shuffled minibatches of one rollout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.engine.advantages import (
    approximate_kl,
    clip_fraction,
    length_mask,
    masked_mean,
    policy_losses,
    value_losses,
)
from training.engine.batching import PackedRow, Packing
from training.engine.config import PPOConfig
from training.engine.distributed import add_up
from training.engine.dpo import ADAPTER
from training.engine.models import Base
from training.engine.rollouts import Begun, Critic, policy_tables, value_table
from training.engine.sharding import own_groups
from training.engine.steps import Steps, batches

#: How the policy's parameters are named among the trained ones.
POLICY = "lora."
#: What a minibatch reports, and what of it while only the value is trained.
FIGURES = ("loss/value", "loss/policy", "clip/fraction", "kl/update")
WARMING = FIGURES[:1]


@dataclass(frozen=True)
class Targets:
    """What some answers of a rollout are compared with. Everything (n, T); share: scalar.

    share: the answers' part of the minibatch's tokens, so that groups add up to a mean over tokens.
    """

    mask: Tensor
    old_logps: Tensor
    advantages: Tensor
    old_values: Tensor
    returns: Tensor
    share: Tensor

    @classmethod
    def of(cls, begun: Begun, answers: Sequence[int], n_tokens: int, like: Tensor) -> Targets:
        rollouts, rows = begun.rollouts, list(answers)
        mask = length_mask(rollouts.lengths[rows], rollouts.logps.shape[1]).to(like.device)
        return cls(
            mask=mask,
            old_logps=rollouts.logps[rows].to(like.device),
            advantages=begun.advantages[rows].to(like.device),
            old_values=rollouts.values[rows].to(like.device),
            returns=begun.returns[rows].to(like.device),
            share=mask.sum() / n_tokens,
        )

    def value_loss(self, values: Tensor, ppo: PPOConfig) -> Tensor:
        tokens = value_losses(
            values, self.old_values, self.returns, cliprange_value=ppo.cliprange_value
        )
        return masked_mean(tokens, self.mask) * self.share

    def policy_loss(self, logps: Tensor, ppo: PPOConfig) -> Tensor:
        tokens = policy_losses(
            logps,
            self.old_logps,
            self.advantages,
            cliprange=ppo.cliprange,
            dual_clip=ppo.dual_clip,
        )
        return masked_mean(tokens, self.mask) * self.share

    @torch.no_grad()
    def movement(self, logps: Tensor, ppo: PPOConfig) -> dict[str, float]:
        """How far the policy is from that of the rollout."""
        clipped = clip_fraction(logps, self.old_logps, self.mask, cliprange=ppo.cliprange)
        moved = masked_mean(approximate_kl(self.old_logps, logps, "k3"), self.mask)
        return {
            "clip/fraction": (clipped * self.share).item(),
            "kl/update": (moved * self.share).item(),
        }


def update_policy(
    base: Base,
    critic: Critic,
    steps: Steps,
    begun: Begun,
    packing: Packing,
    *,
    update: int,
    carried: Mapping[str, object],
    kept: Mapping[str, Tensor],
) -> dict[str, float]:
    """`epochs` passes over the rollouts in minibatches. Returns the update's mean metrics.

    The first `critic_warmup_updates` leave the policy alone. Where the minibatch at hand has moved
    further than `update_kl_stop`, its step is not taken and the update ends (as `target_kl` ends it
    in Spinning Up and Stable-Baselines3, which stop at 1.5 times that figure; here at itself).
    carried, kept: state and tensors that a checkpoint needs besides the update's own.
    """
    config = steps.run.config
    ppo = config.ppo
    assert ppo is not None  # noqa: S101 - the config guarantees it
    warming = update < ppo.critic_warmup_updates
    resting = [name for name in steps.names if warming and name.startswith(POLICY)]
    tensors = {**begun.tensors(), **kept}
    plan = batches(
        len(begun.rollouts.trees),
        ppo.minibatch_size // ppo.samples_per_prompt,
        ppo.epochs,
        seed=config.seed + 31 * update,
    )
    for minibatch in plan[begun.minibatches :]:
        steps.reached({**carried, **begun.position()}, tensors)
        figures = add_gradients(base, critic, steps, begun, packing, minibatch, ppo, warming)
        # the first minibatch has moved by rounding alone
        limit = ppo.update_kl_stop if begun.minibatches else None
        if limit is not None and figures.get("kl/update", 0.0) > limit:
            steps.drop()
            break
        begun.taken = steps.take(schedule_step=update, resting=resting)
        for name, value in figures.items():
            begun.sums[name] = begun.sums.get(name, 0.0) + value
        begun.minibatches += 1
    means = {name: total / begun.minibatches for name, total in begun.sums.items()}
    return means | begun.taken | {"update/passes": ppo.epochs * begun.minibatches / len(plan)}


def add_gradients(
    base: Base,
    critic: Critic,
    steps: Steps,
    begun: Begun,
    packing: Packing,
    minibatch: Sequence[int],
    ppo: PPOConfig,
    warming: bool,
) -> dict[str, float]:
    """Gradients of one minibatch (indices of trees), a group of rows at a time; its metrics."""
    rollouts = begun.rollouts
    width = rollouts.logps.shape[1]
    answers = rollouts.rows(minibatch)
    n_tokens = int(rollouts.lengths[answers].sum())
    figures = dict.fromkeys(WARMING if warming else FIGURES, 0.0)

    def targets(indices: Sequence[int], like: Tensor) -> Targets:
        return Targets.of(begun, [answers[index] for index in indices], n_tokens, like)

    def add(values: Mapping[str, float]) -> None:
        for name, value in values.items():
            figures[name] += value

    def policy_gradients(group: Sequence[PackedRow]) -> None:
        shared = critic.head if critic.adapter is None else None
        with base.use(ADAPTER):
            indices, logps, values = policy_tables(base, shared, group, width, ppo.temperature)
            target = targets(indices, logps)
            loss = policy_loss = target.policy_loss(logps, ppo)
            if shared is not None:
                value_loss = target.value_loss(values, ppo)
                loss = policy_loss + ppo.vf_coef * value_loss
                add({"loss/value": value_loss.item()})
            steps.check_finite(loss)
            loss.backward()
        add({"loss/policy": policy_loss.item()} | target.movement(logps, ppo))

    def value_gradients(group: Sequence[PackedRow]) -> None:
        with base.use(critic.adapter or ADAPTER):
            frozen = critic.adapter is None
            indices, values = value_table(base, critic.head, group, width, frozen=frozen)
            loss = targets(indices, values).value_loss(values, ppo)
            steps.check_finite(loss)
            (ppo.vf_coef * loss).backward()
        add({"loss/value": loss.item()})

    for group in own_groups(base, [rollouts.trees[index] for index in minibatch], packing):
        steps.raise_if_stopped()
        if not warming:
            policy_gradients(group)
        if warming or critic.adapter is not None:
            value_gradients(group)
    sums = torch.tensor([*figures.values()], dtype=torch.float64)
    add_up(sums)
    return dict(zip(figures, sums.tolist(), strict=True))
