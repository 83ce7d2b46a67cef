"""Fixtures worked out by hand or published, and a closed-form optimum our losses must reach."""

import math

import pytest
import torch

from training.engine.advantages import (
    approximate_kl,
    clip_fraction,
    explained_variance,
    generalized_advantages,
    kl_shaped_rewards,
    length_mask,
    masked_mean,
    policy_losses,
    token_entropy,
    value_losses,
    whiten,
)

NAN = float("nan")


def close(actual, expected, atol=1e-6):
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=actual.dtype), atol=atol, rtol=0
    )


def test_length_mask_comes_from_lengths_alone():
    mask = length_mask(torch.tensor([1, 3, 2]), 3)
    assert mask.tolist() == [[True, False, False], [True, True, True], [True, True, False]]


def test_masked_mean_weighs_tokens_not_episodes():
    # (1 + 2 + 4 + 5) / 4 = 3; the mean of the episode means would be (1 + 11/3) / 2
    values = torch.tensor([[1.0, 99.0, NAN], [2.0, 4.0, 5.0]])
    mask = length_mask(torch.tensor([1, 3]), 3)
    close(masked_mean(values, mask), 3.0)


# Whitening


def test_whitening_without_mean_shift_equals_the_published_unbiased_numbers():
    # "The N implementation details of RLHF with PPO", whitening section, torch (unbiased) variant
    rewards = torch.tensor([[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]])
    whitened = whiten(rewards, torch.ones(3, 3, dtype=torch.bool), shift_mean=False)
    close(
        whitened,
        [[0.1394, 0.5046, 0.8697], [1.2349, 1.6000, 1.9651], [2.3303, 2.6954, 3.0606]],
        atol=1e-4,
    )


def test_whitening_with_mean_shift_gives_mean_zero_and_variance_one():
    # 1, 2, 3: mean 2, unbiased variance 1 → -1, 0, 1. Padding holds rubbish and returns 0.
    mask = length_mask(torch.tensor([2, 1]), 2)
    whitened = whiten(torch.tensor([[1.0, 2.0], [3.0, NAN]]), mask)
    close(whitened, [[-1.0, 0.0], [1.0, 0.0]])


def test_whitening_one_token_centres_it():
    close(whiten(torch.tensor([[5.0, 7.0]]), length_mask(torch.tensor([1]), 2)), [[0.0, 0.0]])


# KL estimators


@pytest.mark.parametrize(
    ("mu", "true_kl", "published"),
    [
        # Schulman 2020, http://joschu.net/blog/kl-approx.html: (bias, std), in units of the true KL
        (0.1, 0.005, {"k1": (0.0, 20.0), "k2": (0.002, 1.42), "k3": (0.0, 1.42)}),
        (1.0, 0.5, {"k1": (0.0, 2.0), "k2": (0.25, 1.73), "k3": (0.0, 1.7)}),
    ],
)
def test_kl_estimators_have_the_published_bias_and_spread(mu, true_kl, published):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2_000_000, dtype=torch.float64, generator=generator) + mu  # x ~ q = N(mu, 1)
    q = torch.distributions.Normal(mu, 1.0).log_prob(x)
    p = torch.distributions.Normal(0.0, 1.0).log_prob(x)
    for estimator, (bias, spread) in published.items():
        estimates = approximate_kl(q, p, estimator)
        # five standard errors of the mean, and 1 % of the spread
        tolerance = 5 * spread / math.sqrt(len(x)) + 5e-4
        assert abs(float(estimates.mean()) / true_kl - 1.0 - bias) < tolerance, estimator
        assert abs(float(estimates.std()) / true_kl - spread) < 0.01 * spread + 0.005, estimator


def test_k3_is_never_negative_and_all_are_zero_for_equal_policies():
    logps = torch.tensor([-0.1, -5.0, -2.0])
    assert bool((approximate_kl(logps, torch.tensor([-4.0, -0.2, -2.0]), "k3") >= 0).all())
    for estimator in ("k1", "k2", "k3"):
        close(approximate_kl(logps, logps, estimator), [0.0, 0.0, 0.0])


# Rewards


def test_reward_is_minus_kl_everywhere_and_the_score_at_the_last_real_token():
    # kl_coef 0.5: row 0: -0.5·[1, -2] = [-0.5, 1.0], + score 3 at index 1 → 4.0
    # row 1 has one token: -0.5·(-1) = 0.5, + score -1, not finished: -2 → -2.5; padding stays 0
    rewards = kl_shaped_rewards(
        torch.tensor([[-1.0, -3.0], [-2.0, NAN]]),
        torch.tensor([[-2.0, -1.0], [-1.0, NAN]]),
        torch.tensor([3.0, -1.0]),
        torch.tensor([2, 1]),
        torch.tensor([True, False]),
        kl_coef=0.5,
        missing_eos_penalty=2.0,
    )
    close(rewards, [[-0.5, 4.0], [-2.5, 0.0]])


def test_rewards_carry_no_gradient():
    logps = torch.tensor([[-1.0]], requires_grad=True)
    one = torch.ones(1, dtype=torch.long)
    rewards = kl_shaped_rewards(
        logps, logps.detach() - 1, one * 1.0, one, one.bool(), kl_coef=1.0, missing_eos_penalty=0.0
    )
    assert not rewards.requires_grad


# Advantages


def test_gae_equals_the_published_returns():
    # torchtune's fixture: only the last reward is 1 and V there is 1, so δ_3 = 0 and
    # δ_2 = γ·1 = .9; A_1 = γλ·.9, A_0 = (γλ)²·.9 → returns .9³·.95², .9²·.95, .9, 1
    advantages, returns = generalized_advantages(
        torch.tensor([[0.0, 0.0, 0.0, 1.0]]),
        torch.tensor([[0.0, 0.0, 0.0, 1.0]]),
        torch.ones(1, 4, dtype=torch.bool),
        gamma=0.9,
        lam=0.95,
    )
    expected = [0.9**3 * 0.95**2, 0.9**2 * 0.95, 0.9, 1.0]
    close(returns, [expected])
    close(advantages, [[*expected[:3], 0.0]])


def test_gae_of_a_padded_row_equals_gae_of_the_row_alone():
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randn(2, 6, generator=generator)
    values = torch.randn(2, 6, generator=generator)
    lengths = torch.tensor([6, 3])
    padded_rewards = torch.where(length_mask(lengths, 6), rewards, NAN)
    padded_values = torch.where(length_mask(lengths, 6), values, NAN)
    advantages, returns = generalized_advantages(
        padded_rewards, padded_values, length_mask(lengths, 6), gamma=0.97, lam=0.9
    )
    alone, alone_returns = generalized_advantages(
        rewards[1:, :3], values[1:, :3], torch.ones(1, 3, dtype=torch.bool), gamma=0.97, lam=0.9
    )
    torch.testing.assert_close(advantages[1:, :3], alone)
    torch.testing.assert_close(returns[1:, :3], alone_returns)
    close(advantages[1, 3:], [0.0, 0.0, 0.0])
    close(returns[1, 3:], [0.0, 0.0, 0.0])


def test_gae_with_lambda_one_is_return_minus_value():
    # γ = λ = 1 telescopes: A_t = Σ_{s≥t} r_s − V_t; rewards 1, 2, 3 → returns 6, 5, 3
    values = torch.tensor([[0.5, -1.0, 2.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages, returns = generalized_advantages(
        torch.tensor([[1.0, 2.0, 3.0]]), values, mask, gamma=1.0, lam=1.0
    )
    close(returns, [[6.0, 5.0, 3.0]])
    close(advantages, [[5.5, 6.0, 1.0]])


# Losses


def test_policy_loss_is_clipped_only_where_that_lowers_the_objective():
    # ratios 1.5, 1.5, 0.5, 0.5, 1 with ε = .2
    # A=+1, 1.5 → min(1.5, 1.2) = 1.2; A=-1, 1.5 → min(-1.5, -1.2) = -1.5
    # A=+1, 0.5 → min(0.5, 0.8) = 0.5; A=-1, 0.5 → min(-0.5, -0.8) = -0.8; A=2, 1 → 2
    ratios = torch.tensor([[1.5, 1.5, 0.5, 0.5, 1.0]])
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0, 2.0]])
    old = torch.full_like(ratios, -3.0)
    losses = policy_losses(old + ratios.log(), old, advantages, cliprange=0.2)
    close(losses, [[-1.2, 1.5, -0.5, 0.8, -2.0]])


def test_a_dual_clip_bounds_what_a_bad_token_costs():
    # ratios e^3 = 20.09, 2, 1.1 with A = −1, 2 with A = 1; cliprange 0.2, dual clip 3.
    # A < 0: −max(min(r·A, clip(r)·A), 3·A): 3 instead of 20.09; 2; 1.1. A > 0: −1.2, as without
    logps = torch.tensor([[3.0, math.log(2.0), math.log(1.1), math.log(2.0)]]).requires_grad_()
    advantages = torch.tensor([[-1.0, -1.0, -1.0, 1.0]])
    losses = policy_losses(logps, torch.zeros(1, 4), advantages, cliprange=0.2, dual_clip=3.0)
    close(losses, [[3.0, 2.0, 1.1, -1.2]])
    losses.sum().backward()
    close(logps.grad, [[0.0, 2.0, 1.1, 0.0]])
    plain = policy_losses(logps, torch.zeros(1, 4), advantages, cliprange=0.2)
    close(plain, [[math.exp(3.0), 2.0, 1.1, -1.2]])


def test_a_ratio_beyond_numbers_stays_a_number_and_pulls_at_nothing():
    logps = torch.tensor([[1000.0, -1000.0]]).requires_grad_()
    losses = policy_losses(logps, torch.zeros(1, 2), torch.tensor([[-1.0, -1.0]]), cliprange=0.2)
    close(losses.log(), [[20.0, math.log(0.8)]])
    losses.sum().backward()
    close(logps.grad, [[0.0, 0.0]])


def test_clipped_tokens_get_no_gradient():
    logps = torch.tensor([1.5, 1.5, 1.0]).log().requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 3.0])
    policy_losses(logps, torch.zeros(3), advantages, cliprange=0.2).sum().backward()
    # d(−ratio·A)/dlogp = −ratio·A where not clipped
    close(logps.grad, [0.0, 1.5, -3.0])


def test_value_loss_takes_the_worse_of_clipped_and_unclipped():
    # old 0, ε = .2. V=1, R=1: clipped .2 → ½ max(0, .64) = .32
    # V=.1, R=1: clipped .1 → ½·.81 = .405; V=-1, R=1: clipped -.2 → ½ max(4, 1.44) = 2
    losses = value_losses(
        torch.tensor([[1.0, 0.1, -1.0]]), torch.zeros(1, 3), torch.ones(1, 3), cliprange_value=0.2
    )
    close(losses, [[0.32, 0.405, 2.0]])


def test_clip_fraction_counts_real_tokens_only():
    ratios = torch.tensor([[1.0, 1.5, 1.1], [0.7, NAN, NAN]])
    mask = length_mask(torch.tensor([3, 1]), 3)
    close(clip_fraction(ratios.log(), torch.zeros(2, 3), mask, cliprange=0.2), 0.5)


def test_entropy_of_known_distributions():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, -math.inf, -math.inf, -math.inf]])
    close(token_entropy(logits), [math.log(4.0), 0.0])


def test_explained_variance_is_one_for_the_truth_zero_for_a_constant_and_for_constant_returns():
    returns = torch.tensor([[1.0, 2.0, 4.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    close(explained_variance(returns, returns, mask), 1.0)
    close(explained_variance(torch.full((1, 3), 9.0), returns, mask), 0.0)
    close(explained_variance(returns, torch.ones(1, 3), mask), 0.0)


# The oracle: a one-token bandit, whose optimum under a KL penalty is known in closed form


@pytest.mark.parametrize(
    ("beta", "optimum", "objective"),
    [(0.5, [0.016089, 0.071328, 0.263523, 0.649061], 1.718248)],
)
def test_our_losses_drive_a_bandit_to_the_kl_regularised_optimum(beta, optimum, objective):
    """π* ∝ π_ref exp(r/β), J* = β log Z: a wrong sign or scale of the KL term lands elsewhere."""
    arm_rewards = torch.tensor([0.0, 1.0, 2.0, 3.0])
    ref_log = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    best = torch.softmax(ref_log + arm_rewards / beta, 0)
    close(best, optimum)
    assert abs(beta * float(torch.logsumexp(ref_log + arm_rewards / beta, 0)) - objective) < 1e-5

    episodes, updates = 2048, 250
    generator = torch.Generator().manual_seed(0)
    logits = ref_log.clone().requires_grad_()
    value = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([logits, value], lr=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, updates)
    lengths = torch.ones(episodes, dtype=torch.long)
    mask = length_mask(lengths, 1)
    finished = torch.ones(episodes, dtype=torch.bool)
    for _ in range(updates):
        with torch.no_grad():
            old_log = torch.log_softmax(logits, 0)
            arms = torch.multinomial(old_log.exp(), episodes, True, generator=generator)
            old_logps = old_log[arms][:, None]  # (B, 1)
            old_values = value.detach().expand(episodes, 1)
            rewards = kl_shaped_rewards(
                old_logps, ref_log[arms][:, None], arm_rewards[arms], lengths, finished,
                kl_coef=beta, missing_eos_penalty=1.0,
            )  # fmt: skip
            advantages, returns = generalized_advantages(
                rewards, old_values, mask, gamma=1.0, lam=0.95
            )
            advantages = whiten(advantages, mask)
        for _ in range(4):
            logps = torch.log_softmax(logits, 0)[arms][:, None]
            losses = policy_losses(logps, old_logps, advantages, cliprange=0.2)
            value_loss = value_losses(
                value.expand(episodes, 1), old_values, returns, cliprange_value=0.2
            )
            optimizer.zero_grad()
            (masked_mean(losses, mask) + 0.1 * masked_mean(value_loss, mask)).backward()
            optimizer.step()
        schedule.step()

    policy = torch.softmax(logits.detach(), 0)
    reached = (policy * (arm_rewards - beta * (policy.log() - ref_log))).sum()
    assert abs(float(reached) / objective - 1.0) < 0.02
    assert 0.5 * float((policy - best).abs().sum()) <= 0.02
    # the value head has learnt what an episode is worth: J itself
    assert abs(float(value) - objective) < 0.1
