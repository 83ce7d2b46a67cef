"""Published and hand-worked numbers for the preference losses."""

from __future__ import annotations

import pytest
import torch

from training.engine.intervals import clustered_interval, right
from training.engine.losses import accuracy, dpo_losses, linear_schedule, reward_losses

ONES = torch.ones(3)


def both(chosen: list[float], rejected: list[float]) -> torch.Tensor:
    return torch.tensor([chosen, rejected]).t()


#: torchtune's fixture: at beta 0.1 its margins are 0, 1 and 2.
LOGPS = both([-0.5, -10.0, -1.0], [-0.1, -30.0, -21.0])
REFS = both([-0.5, -10.1, -0.1], [-0.1, -20.1, -0.1])
LENGTHS = both([4.0, 5.0, 2.0], [1.0, 10.0, 20.0])


def test_dpo_equals_the_published_fixture() -> None:
    # ln 2, -log σ(1), -log σ(2)
    losses, margins = dpo_losses(LOGPS, REFS, LENGTHS, ONES, beta=0.1)
    torch.testing.assert_close(
        losses, torch.tensor([0.693147, 0.313262, 0.126928]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(margins, torch.tensor([0.0, 1.0, 2.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("loss", "smoothing", "worked"),
    [
        # Δ per token: 0; 0.1/5 + 9.9/10 = 1.01; -0.9/2 + 20.9/20 = 0.595
        ("sigmoid_norm", 0.0, [0.693147, 0.643922, 0.663839]),  # -log σ(0.1 · that)
        ("ipo", 0.0, [25.0, 15.9201, 19.404025]),  # (that - 5)²
        # (0.8 · (-log σ(m)) - 0.2 · (-log σ(-m))) / 0.6 for m = 0, 1, 2
        ("robust", 0.2, [0.693147, -0.020071, -0.539739]),
    ],
)
def test_the_successors_of_dpo_on_hand_worked_numbers(
    loss: str, smoothing: float, worked: list[float]
) -> None:
    losses, margins = dpo_losses(
        LOGPS, REFS, LENGTHS, ONES, beta=0.1, loss=loss, label_smoothing=smoothing
    )
    torch.testing.assert_close(losses, torch.tensor(worked), atol=1e-5, rtol=0)
    torch.testing.assert_close(margins, torch.tensor([0.0, 1.0, 2.0]), atol=1e-5, rtol=0)


def test_robust_losses_are_unbiased_under_flipped_labels() -> None:
    clean, _ = dpo_losses(LOGPS, REFS, LENGTHS, ONES, beta=0.1)
    right, _ = dpo_losses(LOGPS, REFS, LENGTHS, ONES, beta=0.1, loss="robust", label_smoothing=0.3)
    wrong, _ = dpo_losses(
        LOGPS.flip(1), REFS.flip(1), LENGTHS.flip(1), ONES, beta=0.1, loss="robust",
        label_smoothing=0.3,
    )  # fmt: skip
    torch.testing.assert_close(0.7 * right + 0.3 * wrong, clean)


@pytest.mark.parametrize("loss", ["sigmoid", "sigmoid_norm", "robust", "ipo"])
def test_swapping_the_responses_and_the_label_changes_nothing_but_the_sign(loss: str) -> None:
    torch.manual_seed(0)
    logps, refs = torch.randn(5, 2), torch.randn(5, 2)
    lengths, p = torch.randint(1, 9, (5, 2)), torch.rand(5)
    more = {"beta": 0.3, "loss": loss, "label_smoothing": 0.1 if loss == "robust" else 0.0}
    losses, margins = dpo_losses(logps, refs, lengths, p, **more)
    same, negated = dpo_losses(logps.flip(1), refs.flip(1), lengths.flip(1), 1.0 - p, **more)
    torch.testing.assert_close(margins, -negated)
    torch.testing.assert_close(losses, same)


def test_a_coin_flip_label_is_least_costly_at_margin_zero() -> None:
    scores = torch.linspace(-2, 2, 9)
    losses, _ = reward_losses(scores, torch.zeros(9), torch.full((9,), 0.5))
    assert int(losses.argmin()) == 4


def test_smoothing_mixes_the_two_labels() -> None:
    # 0.9·(−log σ(1)) + 0.1·(−log σ(−1)) = 0.9·0.313262 + 0.1·1.313262 = 0.413262
    losses, _ = dpo_losses(
        both([10.0], [0.0]), torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1), beta=0.1,
        label_smoothing=0.1,
    )  # fmt: skip
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


def test_a_margin_is_asked_of_the_difference() -> None:
    # d = 1, m = 1: −log σ(0) = ln 2; d = 2, m = 1: −log σ(1); d = 0, m = 2: −log σ(−2)
    losses, margins = reward_losses(
        torch.tensor([1.0, 2.0, 0.0]), torch.zeros(3), ONES, offsets=torch.tensor([1.0, 1.0, 2.0])
    )
    torch.testing.assert_close(
        losses, torch.tensor([0.693147, 0.313262, 2.126928]), atol=1e-5, rtol=0
    )
    assert margins.tolist() == [1.0, 2.0, 0.0]


def test_swapping_scores_label_and_margin_costs_the_same() -> None:
    torch.manual_seed(0)
    chosen, rejected, p, m = torch.randn(6), torch.randn(6), torch.rand(6), torch.rand(6)
    losses, margins = reward_losses(chosen, rejected, p, centring=0.1, offsets=m)
    same, negated = reward_losses(rejected, chosen, 1.0 - p, centring=0.1, offsets=-m)
    torch.testing.assert_close(losses, same)
    torch.testing.assert_close(margins, -negated)


def test_dpo_with_an_offset_asks_the_implicit_reward_to_lead() -> None:
    # margins βΔ are 0, 1 and 2; offsets 1, 1, 0 leave −1, 0 and 2
    offsets = torch.tensor([1.0, 1.0, 0.0])
    losses, margins = dpo_losses(LOGPS, REFS, LENGTHS, ONES, beta=0.1, offsets=offsets)
    torch.testing.assert_close(
        losses, torch.tensor([1.313262, 0.693147, 0.126928]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(margins, torch.tensor([0.0, 1.0, 2.0]), atol=1e-5, rtol=0)
    p = torch.tensor([0.9, 0.3, 0.5])
    losses, _ = dpo_losses(LOGPS, REFS, LENGTHS, p, beta=0.1, offsets=offsets)
    same, _ = dpo_losses(
        LOGPS.flip(1), REFS.flip(1), LENGTHS.flip(1), 1.0 - p, beta=0.1, offsets=-offsets
    )
    torch.testing.assert_close(losses, same)


def test_an_exact_tie_counts_half() -> None:
    assert accuracy(torch.tensor([1.0, -1.0, 0.0, 2.0])).item() == 0.625
    assert right([1.0, -1.0, 0.0]) == [1.0, 0.0, 0.5]


def test_the_rate_rises_then_falls_to_zero() -> None:
    rates = [linear_schedule(step, 10, 2, "linear") for step in range(11)]
    assert rates[:3] == [1 / 3, 2 / 3, 1.0]
    assert rates[10] == 0.0
    assert linear_schedule(9, 10, 2, "constant") == 1.0


def test_one_prompt_has_no_interval_and_many_have() -> None:
    assert clustered_interval([1.0, 0.0], ["a", "a"]) == (0.5, None, None)
    mean, low, high = clustered_interval([1.0, 0.0] * 20, [str(n) for n in range(40)])
    assert low is not None
    assert high is not None
    assert low < mean == 0.5 < high
