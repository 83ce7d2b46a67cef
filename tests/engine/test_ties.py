"""Rao-Kupper's and Davidson's models of ties, against their published closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from training.engine.ties import TieModel, start_value, tie_losses

MODELS = ["rao_kupper", "davidson"]


@pytest.mark.parametrize(
    ("kind", "value", "difference"),
    [
        # Of two items with 50 wins, 20 losses, 30 ties the closed forms are: Rao-Kupper θ = 2 and a
        # ratio of strengths of 2 (1·2/(2 + 2·1) = .5, 1/(1 + 2·2) = .2); Davidson ln ratio =
        # ln(50/20) and ν = 30/√(50·20) = .948683.
        ("rao_kupper", 2.0, math.log(2.0)),
        ("davidson", 0.948683, math.log(2.5)),
    ],
)
def test_the_closed_form_of_two_items(kind: str, value: float, difference: float) -> None:
    model = TieModel(kind, value, learnt=True)
    assert model.value == pytest.approx(value, rel=1e-5)
    d = torch.tensor([difference], requires_grad=True)
    shares = [each.exp().item() for each in model.log_probabilities(d)]
    assert shares == pytest.approx([0.5, 0.2, 0.3], abs=1e-5)
    # and it is where the loss of those shares is least: no slope in the difference or parameter
    losses, _ = tie_losses(
        model, d, torch.zeros(1), torch.tensor([0.65]), torch.tensor([0.3])
    )  # P(better) with a tie counted half: .5 + .3/2
    losses.sum().backward()
    entropy = -sum(p * math.log(p) for p in (0.5, 0.2, 0.3))
    assert losses.item() == pytest.approx(entropy, abs=1e-5)
    assert d.grad is not None
    assert model.free.grad is not None
    assert d.grad.item() == pytest.approx(0.0, abs=1e-5)
    assert model.free.grad.item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("value", [1.001, 3.0, 400.0])
def test_the_three_probabilities_are_one_and_turn_with_the_sign(kind: str, value: float) -> None:
    model = TieModel(kind, value, learnt=False)
    d = torch.linspace(-30, 30, 61)
    better, worse, tie = model.log_probabilities(d)
    torch.testing.assert_close(better.exp() + worse.exp() + tie.exp(), torch.ones(61))
    turned = model.log_probabilities(-d)
    torch.testing.assert_close(better, turned[1])
    torch.testing.assert_close(tie, turned[2], atol=1e-5, rtol=1e-5)
    assert int(tie.argmax()) == 30, "equal scores tie most often"


@pytest.mark.parametrize(
    ("kind", "value"),
    # by hand at d = 1: σ(1 − ln 2) = .576117, σ(−1 − ln 2) = .155362, the rest ties;
    # Davidson: e^½ = 1.648721, e^−½ = .606531, ν = 1: of 3.255252
    [("rao_kupper", 2.0), ("davidson", 1.0)],
)
def test_worked_numbers(kind: str, value: float) -> None:
    worked = {
        "rao_kupper": [0.576117, 0.155362, 0.268521],
        "davidson": [0.506480, 0.186324, 0.307196],
    }
    found = TieModel(kind, value, learnt=False).log_probabilities(torch.tensor(1.0))
    assert [each.exp().item() for each in found] == pytest.approx(worked[kind], abs=1e-5)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_it_starts_where_equal_scores_tie_as_often_as_the_rows(kind: str, share: float) -> None:
    model = TieModel(kind, start_value(kind, share), learnt=True)
    better, _, tie = model.log_probabilities(torch.zeros(()))
    assert tie.exp().item() == pytest.approx(share, abs=1e-5)
    assert better.exp().item() == pytest.approx((1 - share) / 2, abs=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_swapping_responses_and_label_costs_the_same(kind: str) -> None:
    torch.manual_seed(0)
    model = TieModel(kind, 1.7, learnt=False)
    chosen, rejected, t = torch.randn(6), torch.randn(6), torch.rand(6) / 2
    p = t / 2 + (1 - t) * torch.rand(6)
    losses, margins = tie_losses(model, chosen, rejected, p, t, centring=0.1)
    same, negated = tie_losses(model, rejected, chosen, 1 - p, t, centring=0.1)
    torch.testing.assert_close(losses, same)
    torch.testing.assert_close(margins, -negated)


def test_without_ties_both_are_bradley_terry() -> None:
    d = torch.tensor([0.0, 1.0, 2.0])
    for kind, value in (("rao_kupper", 1.0 + 1e-6), ("davidson", 1e-6)):
        better, _, _ = TieModel(kind, value, learnt=False).log_probabilities(d)
        torch.testing.assert_close(
            -better, torch.tensor([0.693147, 0.313262, 0.126928]), atol=1e-5, rtol=0
        )
