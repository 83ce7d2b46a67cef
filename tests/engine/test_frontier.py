"""Reward over KL: which steps no other beats."""

from __future__ import annotations

import pytest

from training.engine.config import EvaluateConfig
from training.engine.errors import ConfigError, DataError
from training.engine.frontier import Point, of_rows, with_frontier


def test_a_step_is_best_where_none_has_more_reward_for_as_little_kl() -> None:
    points = [Point(1, 0.0, 0.1), Point(2, 0.2, 0.5), Point(3, 0.3, 0.4), Point(4, 0.9, 0.6)]
    assert [(p.step, p.best) for p in with_frontier(points)] == [
        (1, True), (2, True), (3, False), (4, True),
    ]  # fmt: skip


def test_of_two_steps_of_one_kl_the_better_is_best() -> None:
    found = with_frontier([Point(1, 0.5, 0.1), Point(2, 0.5, 0.3), Point(3, 0.5, 0.3)])
    assert [(p.step, p.best) for p in found] == [(2, True), (3, False), (1, False)]


def test_a_row_that_is_none_is_named() -> None:
    with pytest.raises(DataError, match="frontier row 2"):
        of_rows([{"step": 1, "kl": 0.0, "reward": 0.0}, {"step": 2}])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reward_adapter": "r", "general": True}, "evaluate.general"),
        ({"policy_adapter": "p", "gate": 0.1}, "evaluate.gate"),
        ({"policy_adapter": "p", "general": True, "gate": 0.0}, "evaluate.gate"),
        ({"policy_adapter": "p", "probe_gate": 0.1}, "evaluate.probe_gate"),
        ({"policy_adapter": "p", "general": True, "probe_gate": 1.0}, "evaluate.probe_gate"),
    ],
)
def test_a_gate_needs_what_it_judges(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EvaluateConfig(**settings)  # type: ignore[arg-type]
