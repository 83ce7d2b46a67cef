"""Our rewards, advantages and PPO losses equal those of the last TRL that had PPO.

TRL removed PPO in 1.13, and two TRLs do not fit into one environment. So its lines are repeated
here: trl 1.12.0, trl/experimental/ppo/ppo_trainer.py, `masked_whiten` and `PPOTrainer.train`
(response processing 3 to advantages, and the losses), Copyright 2020-2026 The HuggingFace Team,
Apache-2.0, changed only to be functions of their inputs.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from training.engine.advantages import (
    generalized_advantages,
    kl_shaped_rewards,
    length_mask,
    masked_mean,
    policy_losses,
    value_losses,
    whiten,
)

CLIP, KL, GAMMA, LAM, PENALTY = 0.2, 0.05, 0.98, 0.95, 1.0


def trl_masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum()


def trl_masked_whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    mean = trl_masked_mean(values, mask)
    variance = trl_masked_mean((values - mean) ** 2, mask)
    var = variance * (mask.sum() / (mask.sum() - 1))
    whitened = (values - mean) * torch.rsqrt(var + 1e-8)
    if not shift_mean:
        whitened += mean
    return whitened


def trl_advantages(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    values: Tensor,
    scores: Tensor,
    contain_eos_token: Tensor,
    sequence_lengths: Tensor,
    whiten_rewards: bool,
) -> tuple[Tensor, Tensor]:
    """sequence_lengths: index of each last token, as in TRL."""
    scores = scores.clone()
    scores[~contain_eos_token] -= PENALTY
    response_idxs = torch.arange(values.shape[1]).repeat(values.shape[0], 1)
    padding_mask = response_idxs > sequence_lengths.unsqueeze(1)
    logprobs = torch.masked_fill(logprobs, padding_mask, 1.0)
    ref_logprobs = torch.masked_fill(ref_logprobs, padding_mask, 1.0)
    sequence_lengths_p1 = sequence_lengths + 1
    padding_mask_p1 = response_idxs > (sequence_lengths_p1.unsqueeze(1))
    values = torch.masked_fill(values, padding_mask_p1, 0)
    logr = ref_logprobs - logprobs
    kl = -logr
    rewards = (-KL * kl).clone()
    actual_start = torch.arange(rewards.size(0))
    actual_end = torch.where(
        sequence_lengths_p1 < rewards.size(1), sequence_lengths_p1, sequence_lengths
    )
    rewards[actual_start, actual_end] += scores
    if whiten_rewards:
        rewards = trl_masked_whiten(rewards, mask=~padding_mask_p1, shift_mean=False)
        rewards = torch.masked_fill(rewards, padding_mask_p1, 0)
    lastgaelam: Any = 0
    advantages_reversed = []
    gen_length = values.shape[1]
    for t in reversed(range(gen_length)):
        nextvalues: Any = values[:, t + 1] if t < gen_length - 1 else 0.0
        delta = rewards[:, t] + GAMMA * nextvalues - values[:, t]
        lastgaelam = delta + GAMMA * LAM * lastgaelam
        advantages_reversed.append(lastgaelam)
    advantages = torch.stack(advantages_reversed[::-1], dim=1)
    returns = advantages + values
    advantages = trl_masked_whiten(advantages, ~padding_mask)
    return torch.masked_fill(advantages, padding_mask, 0), returns


def trl_losses(
    new_logprobs: Tensor,
    mb_logprobs: Tensor,
    mb_advantage: Tensor,
    vpred: Tensor,
    mb_values: Tensor,
    mb_return: Tensor,
    padding_mask: Tensor,
    padding_mask_p1: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """(policy loss, value loss, clipped share)"""
    new_logprobs = torch.masked_fill(new_logprobs, padding_mask, 1.0)
    mb_logprobs = torch.masked_fill(mb_logprobs, padding_mask, 1.0)
    vpred = torch.masked_fill(vpred, padding_mask_p1, 0)
    vpredclipped = torch.clamp(vpred, mb_values - CLIP, mb_values + CLIP)
    vf_losses1 = torch.square(vpred - mb_return)
    vf_losses2 = torch.square(vpredclipped - mb_return)
    vf_loss_max = torch.max(vf_losses1, vf_losses2)
    vf_loss = 0.5 * trl_masked_mean(vf_loss_max, ~padding_mask_p1)
    logprobs_diff = new_logprobs - mb_logprobs
    ratio = torch.exp(logprobs_diff)
    pg_losses = -mb_advantage * ratio
    pg_losses2 = -mb_advantage * torch.clamp(ratio, 1.0 - CLIP, 1.0 + CLIP)
    pg_loss_max = torch.max(pg_losses, pg_losses2)
    pg_loss = trl_masked_mean(pg_loss_max, ~padding_mask)
    return pg_loss, vf_loss, trl_masked_mean((pg_losses2 > pg_losses).float(), ~padding_mask)


def drawn(batch: int = 5, width: int = 7) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(scale: float, *shape: int) -> Tensor:
        return scale * torch.randn(shape, generator=generator, dtype=torch.float64)

    logps = -draw(1.0, batch, width).abs() - 0.1
    return {
        "logps": logps,
        "ref_logps": logps + draw(0.3, batch, width),
        "new_logps": logps + draw(0.4, batch, width),
        "values": draw(1.0, batch, width),
        "new_values": draw(1.0, batch, width),
        "scores": draw(2.0, batch),
        "finished": torch.tensor([True, False, True, True, False])[:batch],
    }


@pytest.mark.parametrize("whiten_rewards", [False, True])
def test_advantages_and_returns_equal_those_of_trl(whiten_rewards: bool) -> None:
    # whole rows: TRL gives a shorter one its score a position after its last token, to a critic
    # state that belongs to no token; there is none to give it to here
    x = drawn()
    lengths = torch.full((5,), 7)
    theirs = trl_advantages(
        x["logps"], x["ref_logps"], x["values"], x["scores"], x["finished"], lengths - 1,
        whiten_rewards,
    )  # fmt: skip
    mask = length_mask(lengths, 7)
    rewards = kl_shaped_rewards(
        x["logps"], x["ref_logps"], x["scores"], lengths, x["finished"],
        kl_coef=KL, missing_eos_penalty=PENALTY,
    )  # fmt: skip
    if whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    advantages, returns = generalized_advantages(rewards, x["values"], mask, gamma=GAMMA, lam=LAM)
    torch.testing.assert_close(whiten(advantages, mask), theirs[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(returns, theirs[1], atol=1e-6, rtol=0)


def test_losses_and_their_gradients_equal_those_of_trl_on_ragged_rows() -> None:
    x = drawn()
    lengths = torch.tensor([7, 1, 4, 6, 2])
    mask = length_mask(lengths, 7)
    advantages = torch.where(mask, drawn()["scores"][:, None] + x["values"], 0.0)
    returns = torch.where(mask, x["values"] + 0.5 * advantages, 0.0)
    gradients = []
    for ours in (True, False):
        logps = x["new_logps"].clone().requires_grad_()
        values = x["new_values"].clone().requires_grad_()
        if ours:
            policy = masked_mean(policy_losses(logps, x["logps"], advantages, cliprange=CLIP), mask)
            value = masked_mean(
                value_losses(values, x["values"], returns, cliprange_value=CLIP), mask
            )
        else:
            policy, value, clipped = trl_losses(
                logps, x["logps"], advantages, values, x["values"], returns, ~mask, ~mask
            )
            assert 0.2 < float(clipped) < 0.9, "the fixture must clip some tokens and not all"
        (policy + 0.1 * value).backward()
        gradients.append((policy.detach(), value.detach(), logps.grad, values.grad))
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=0)
