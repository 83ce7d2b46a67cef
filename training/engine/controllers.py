"""What PPO adapts as it goes: the weight of the KL, and the scale of the rewards.

Both are a few numbers that a checkpoint holds as JSON, which repeats Python's floats exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

#: How far one update's KL may count as off its target (Ziegler et al. 2019, section 2.2).
MAX_ERROR = 0.2


@dataclass
class KLController:
    """The weight β of the KL in the reward; with a target it is adapted after every update.

    Ziegler et al. 2019, arXiv 1909.08593, section 2.2:
    e = clip((KL − target) / target, −0.2, 0.2) and β ← β (1 + K e). The paper's K is 0.1; as in its
    code (openai/lm-human-preferences, `AdaptiveKLController`) K is episodes / horizon here.
    """

    coef: float
    target: float | None
    horizon: int

    def update(self, kl: float, episodes: int) -> None:
        """kl: observed KL to the reference, a mean over `episodes` responses (nats)."""
        if self.target is not None:
            error = min(max(kl / self.target - 1.0, -MAX_ERROR), MAX_ERROR)
            self.coef *= 1.0 + error * episodes / self.horizon


@dataclass
class RunningScale:
    """Standard deviation of all scores so far, by Welford's recurrence.

    Welford 1962, "Note on a method for calculating corrected sums of squares and products",
    Technometrics 4(3). Scores are divided by it and not centred, as in Engstrom et al. 2020
    (arXiv 2005.12729, "reward scaling"): moving their mean would change which answers are worth
    having.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of squared distances from the mean."""

    def add(self, scores: Iterable[float]) -> None:
        for score in scores:
            self.count += 1
            distance = score - self.mean
            self.mean += distance / self.count
            self.squares += distance * (score - self.mean)

    @property
    def std(self) -> float:
        """Unbiased; 1 until two different scores were seen."""
        if self.count < 2 or self.squares == 0.0:
            return 1.0
        return math.sqrt(self.squares / (self.count - 1))
