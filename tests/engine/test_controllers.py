"""What PPO adapts: expected numbers worked out by hand."""

from __future__ import annotations

import statistics

import pytest

from training.engine.controllers import KLController, RunningScale


def test_the_kl_weight_follows_its_target() -> None:
    weight = KLController(coef=0.1, target=2.0, horizon=100)
    # KL 2.2: error 2.2/2 − 1 = 0.1; 0.1 · (1 + 0.1 · 50/100) = 0.105
    weight.update(2.2, episodes=50)
    assert weight.coef == pytest.approx(0.105)
    # KL 10: error 4, clipped to 0.2; 0.105 · (1 + 0.2 · 50/100) = 0.1155
    weight.update(10.0, episodes=50)
    assert weight.coef == pytest.approx(0.1155)
    # KL 0: error −1, clipped to −0.2; 0.1155 · (1 − 0.2 · 25/100) = 0.109725
    weight.update(0.0, episodes=25)
    assert weight.coef == pytest.approx(0.109725)
    # on target nothing moves
    weight.update(2.0, episodes=50)
    assert weight.coef == pytest.approx(0.109725)


def test_without_a_target_the_kl_weight_stays() -> None:
    weight = KLController(coef=0.1, target=None, horizon=100)
    weight.update(1000.0, episodes=50)
    assert weight.coef == 0.1


def test_the_scale_is_the_standard_deviation_of_all_scores_so_far() -> None:
    scale = RunningScale()
    assert scale.std == 1.0
    scale.add([2.0])
    assert scale.std == 1.0  # one score has no spread
    # 2, 4, 9: mean 5, squared distances 9 + 1 + 16 = 26; 26 / 2 = 13
    scale.add([4.0, 9.0])
    assert scale.mean == pytest.approx(5.0)
    assert scale.squares == pytest.approx(26.0)
    assert scale.std == pytest.approx(13.0**0.5)


def test_equal_scores_are_left_as_they_are() -> None:
    scale = RunningScale()
    scale.add([3.0] * 5)
    assert scale.std == 1.0


def test_the_scale_does_not_lose_digits_far_from_zero() -> None:
    # the textbook formula, Σx² − (Σx)²/n, loses all of them here
    scores = [1e9 + each for each in (4.0, 7.0, 13.0, 16.0)]
    scale = RunningScale()
    scale.add(scores)
    assert scale.std == pytest.approx(statistics.stdev(scores), rel=1e-9)
    assert scale.std == pytest.approx(30.0**0.5, rel=1e-9)
