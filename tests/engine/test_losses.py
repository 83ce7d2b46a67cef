"""Published and hand-worked numbers for the preference losses."""

from __future__ import annotations

import torch

from training.engine.intervals import clustered_interval, right
from training.engine.losses import accuracy, dpo_losses, linear_schedule, reward_losses

ONES = torch.ones(3)


def test_dpo_equals_the_published_fixture() -> None:
    # torchtune's fixture, beta 0.1: margins 0, 1 and 2 give ln 2, -log σ(1), -log σ(2)
    losses, margins = dpo_losses(
        torch.tensor([-0.5, -10.0, -1.0]),
        torch.tensor([-0.1, -30.0, -21.0]),
        torch.tensor([-0.5, -10.1, -0.1]),
        torch.tensor([-0.1, -20.1, -0.1]),
        ONES,
        beta=0.1,
    )
    torch.testing.assert_close(
        losses, torch.tensor([0.693147, 0.313262, 0.126928]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(margins, torch.tensor([0.0, 1.0, 2.0]), atol=1e-5, rtol=0)


def test_swapping_chosen_and_rejected_negates_the_margin() -> None:
    logps = [torch.randn(5) for _ in range(4)]
    _, margins = dpo_losses(*logps, torch.ones(5), beta=0.3)
    swapped = [logps[1], logps[0], logps[3], logps[2]]
    _, negated = dpo_losses(*swapped, torch.ones(5), beta=0.3)
    torch.testing.assert_close(margins, -negated)


def test_a_coin_flip_label_is_least_costly_at_margin_zero() -> None:
    scores = torch.linspace(-2, 2, 9)
    losses, _ = reward_losses(scores, torch.zeros(9), torch.full((9,), 0.5))
    assert int(losses.argmin()) == 4


def test_smoothing_mixes_the_two_labels() -> None:
    # 0.9·(−log σ(1)) + 0.1·(−log σ(−1)) = 0.9·0.313262 + 0.1·1.313262 = 0.413262
    one = torch.tensor([10.0])
    losses, _ = dpo_losses(
        one, one * 0, one * 0, one * 0, torch.ones(1), beta=0.1, label_smoothing=0.1
    )
    torch.testing.assert_close(losses, torch.tensor([0.413262]), atol=1e-5, rtol=0)


def test_bradley_terry_equals_the_published_fixture() -> None:
    losses, _ = reward_losses(torch.tensor([0.0, 1.0, 2.0]), torch.zeros(3), ONES)
    torch.testing.assert_close(
        losses, torch.tensor([0.693147, 0.313262, 0.126928]), atol=1e-5, rtol=0
    )


def test_centring_adds_the_square_of_the_sum() -> None:
    plain, _ = reward_losses(torch.tensor([1.0]), torch.tensor([2.0]), torch.ones(1))
    centred, _ = reward_losses(
        torch.tensor([1.0]), torch.tensor([2.0]), torch.ones(1), centring=0.01
    )
    torch.testing.assert_close(centred - plain, torch.tensor([0.09]))  # 0.01 · 3²


def test_an_exact_tie_counts_half() -> None:
    assert accuracy(torch.tensor([1.0, -1.0, 0.0, 2.0])).item() == 0.625
    assert right([1.0, -1.0, 0.0]) == [1.0, 0.0, 0.5]


def test_the_rate_rises_then_falls_to_zero() -> None:
    rates = [linear_schedule(step, 10, 2, "linear") for step in range(11)]
    assert rates[:3] == [1 / 3, 2 / 3, 1.0]
    assert rates[10] == 0.0
    assert linear_schedule(9, 10, 2, "constant") == 1.0


def test_one_prompt_has_no_spread_and_many_have() -> None:
    assert clustered_interval([1.0, 0.0], ["a", "a"]) == (0.5, 0.5, 0.5)
    mean, low, high = clustered_interval([1.0, 0.0] * 20, [str(n) for n in range(40)])
    assert low < mean == 0.5 < high
