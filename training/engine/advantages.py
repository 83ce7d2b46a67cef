"""PPO's arithmetic as pure functions: rewards with KL, GAE, clipped losses, KL estimates.

Everything is (B, T): B episodes, T response tokens, right-padded. Which tokens are real comes from
explicit lengths (`length_mask`), never from a pad id: on many chat models pad is the token
that ends a turn, so a mask inferred from it loses exactly the token that PPO has to learn.

Sources: Schulman et al. 2017, arXiv 1707.06347 (PPO); Schulman et al. 2016, arXiv 1506.02438 (GAE);
Ziegler et al. 2019, arXiv 1909.08593 (KL-shaped reward); Huang et al. 2024, arXiv 2403.17031
(N implementation details); Schulman 2020, http://joschu.net/blog/kl-approx.html (k1, k2, k3).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3"]
#: Largest difference of log-probs that a probability ratio is made of (nats).
MAX_LOG_RATIO = 20.0


def length_mask(lengths: Tensor, width: int) -> Tensor:
    """True where a token is real.

    lengths: number of response tokens of each episode. Shape: (B,)
    Returns: Shape (B, width), bool
    """
    return torch.arange(width, device=lengths.device)[None, :] < lengths[:, None]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens, each token counting once (not a mean of per-episode means).

    values, mask: Shape (B, T). Returns: scalar
    """
    # where, not a product: what lies in the padding may be inf or nan, and nan * 0 is nan
    return torch.where(mask, values, 0.0).sum() / mask.sum()


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Unbiased variance over real tokens. values, mask: Shape (B, T). Returns: scalar"""
    centred = torch.where(mask, values - masked_mean(values, mask), 0.0)
    return centred.square().sum() / (mask.sum() - 1)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Scale real tokens to variance 1; with `shift_mean` also to mean 0, else keep their mean.

    Advantages are whitened with the shift, rewards without it (arXiv 2403.17031, detail on reward
    whitening): moving the mean of the rewards would change which episodes are worth having.
    A single token has no spread, and is centred without being scaled.

    values, mask: Shape (B, T). Returns: Shape (B, T), 0 in the padding
    """
    mean = masked_mean(values, mask)
    whitened = values - mean
    if int(mask.sum()) > 1:
        whitened = whitened * torch.rsqrt(masked_variance(values, mask) + 1e-8)
    if not shift_mean:
        whitened = whitened + mean
    return torch.where(mask, whitened, 0.0)


def approximate_kl(logps: Tensor, ref_logps: Tensor, estimator: KLEstimator) -> Tensor:
    """Estimate KL(policy ‖ reference) from tokens that the policy sampled (Schulman 2020).

    With r = ref/policy: k1 = −log r is unbiased, k2 = (log r)²/2 has less variance and a bias,
    k3 = (r − 1) − log r is unbiased and never negative. Nothing is clamped.

    logps, ref_logps: any equal shape. Returns: the same shape, one estimate a token
    """
    log_r = ref_logps - logps
    if estimator == "k1":
        return -log_r
    if estimator == "k2":
        return 0.5 * log_r.square()
    return torch.expm1(log_r) - log_r


def kl_shaped_rewards(
    logps: Tensor,
    ref_logps: Tensor,
    scores: Tensor,
    lengths: Tensor,
    finished: Tensor,
    *,
    kl_coef: float,
    missing_eos_penalty: float,
) -> Tensor:
    """Per-token rewards: r_t = −kl_coef · (logp − ref_logp), plus the score at the last real token.

    Ziegler et al. 2019, section 2, equation 2, spread over tokens; k1, no gradient. An episode that
    was cut before its end-of-turn token loses `missing_eos_penalty`, at its own last token.

    logps, ref_logps: log-probs of the sampled tokens. Shape: (B, T)
    scores: the reward model's score of the whole response. Shape: (B,)
    lengths: Shape: (B,), each at least 1. finished: ended by an end-of-turn token. Shape: (B,)
    Returns: Shape (B, T), 0 in the padding
    """
    mask = length_mask(lengths, logps.shape[1])
    rewards = torch.where(mask, -kl_coef * approximate_kl(logps, ref_logps, "k1"), 0.0).detach()
    terminal = scores - missing_eos_penalty * (~finished).to(scores.dtype)
    episodes = torch.arange(len(lengths), device=lengths.device)
    rewards[episodes, lengths - 1] += terminal.to(rewards.dtype)
    return rewards


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation, arXiv 1506.02438, equations 11, 12 and 16.

    δ_t = r_t + γ V_{t+1} − V_t and A_t = δ_t + γ λ A_{t+1}, both 0 after the last real token:
    a cut response counts as over, like a finished one (its missing end is paid for in the reward).

    rewards, values, mask: Shape (B, T)
    Returns: (advantages, returns = advantages + values). Shapes: (B, T), 0 in the padding
    """
    rewards = torch.where(mask, rewards, 0.0)
    values = torch.where(mask, values, 0.0)
    advantages = torch.zeros_like(rewards)
    next_value = torch.zeros_like(rewards[:, 0])  # (B,)
    next_advantage = torch.zeros_like(rewards[:, 0])  # (B,)
    for t in range(rewards.shape[1] - 1, -1, -1):
        # in the padding rewards and values are 0, so both stay 0 until the last real token
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = delta + gamma * lam * next_advantage
        next_value = values[:, t]
        advantages[:, t] = next_advantage
    return advantages, advantages + values


def probability_ratio(logps: Tensor, old_logps: Tensor) -> Tensor:
    """exp(logps − old_logps), the exponent kept within ±20 so that no token makes an infinity.

    Far outside any clip range; a token there gets no gradient. Any equal shape, which is returned.
    """
    return torch.exp((logps - old_logps).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


def policy_losses(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    *,
    cliprange: float,
    dual_clip: float | None = None,
) -> Tensor:
    """Clipped surrogate, arXiv 1707.06347, equation 7, negated so that it is minimised.

    With `dual_clip` c a token of negative advantage A costs at most −c·A, however much more
    probable it has become (Ye et al. 2020, arXiv 1912.09729, equation 5).

    logps (with gradient), old_logps, advantages: Shape (B, T)
    Returns: one loss a token. Shape: (B, T); the caller averages over real tokens
    """
    ratio = probability_ratio(logps, old_logps)
    clipped = ratio.clamp(1.0 - cliprange, 1.0 + cliprange)
    gains = torch.minimum(ratio * advantages, clipped * advantages)
    if dual_clip is not None:
        bounded = torch.maximum(gains, dual_clip * advantages)
        gains = torch.where(advantages < 0.0, bounded, gains)
    return -gains


def value_losses(
    values: Tensor, old_values: Tensor, returns: Tensor, *, cliprange_value: float
) -> Tensor:
    """½ max((V − R)², (V_clipped − R)²), V_clipped within ±cliprange_value of the rollout's value.

    The clipping of OpenAI's baselines, kept by arXiv 2403.17031 ("value function clipping").

    values (with gradient), old_values, returns: Shape (B, T)
    Returns: one loss a token. Shape: (B, T); the caller averages over real tokens
    """
    clipped = old_values + (values - old_values).clamp(-cliprange_value, cliprange_value)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())


def clip_fraction(logps: Tensor, old_logps: Tensor, mask: Tensor, *, cliprange: float) -> Tensor:
    """Share of real tokens whose ratio left [1 − cliprange, 1 + cliprange]. Returns: scalar"""
    ratio = probability_ratio(logps, old_logps)
    return masked_mean(((ratio - 1.0).abs() > cliprange).to(ratio.dtype), mask)


def token_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the whole next-token distribution. logits: (…, V). Returns: (…)"""
    logps = torch.log_softmax(logits.float(), dim=-1)
    # an impossible token has logp = −inf and contributes 0, where −inf · 0 would be nan
    return -(logps.exp() * logps.clamp_min(torch.finfo(logps.dtype).min)).sum(-1)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 − Var(returns − values) / Var(returns) over real tokens; 0 where returns do not vary.

    1 is a perfect value function, 0 is no better than a constant, below 0 is worse than one.
    values, returns, mask: Shape (B, T). Returns: scalar
    """
    if int(mask.sum()) < 2 or float(variance := masked_variance(returns, mask)) == 0.0:
        return torch.zeros((), dtype=returns.dtype, device=returns.device)
    return 1.0 - masked_variance(returns - values, mask) / variance
