"""What a reward model makes of ties, from the settings and figures of its version.

Rao & Kupper 1967 and Davidson 1970; the formulas are those of training.engine.ties, which holds
torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.models import ModelVersion

NAMES = {"rao_kupper": "Rao and Kupper (1967)", "davidson": "Davidson (1970)"}


@dataclass(frozen=True)
class Ties:
    """A tie model and its one parameter: θ above 1 of Rao and Kupper, ν above 0 of Davidson."""

    kind: str
    value: float
    #: Whether it was learnt from the rows; else it was given in the config.
    learnt: bool

    @property
    def name(self) -> str:
        return NAMES[self.kind]

    @property
    def symbol(self) -> str:
        return "θ" if self.kind == "rao_kupper" else "ν"

    @property
    def at_equal(self) -> float:
        """P(tie) of two answers with the same score."""
        if self.kind == "rao_kupper":
            return (self.value - 1.0) / (self.value + 1.0)
        return self.value / (2.0 + self.value)

    @property
    def formula(self) -> str:
        """The three probabilities where the first answer's score is higher by d."""
        if self.kind == "rao_kupper":
            return (
                "P(first better) = σ(d − ln θ), P(second better) = σ(−d − ln θ), and a tie is the "
                "rest, σ the logistic function"
            )
        return (
            "P(first better) = e^(d/2)/D, P(second better) = e^(−d/2)/D, P(tie) = ν/D, "
            "D = e^(d/2) + e^(−d/2) + ν"
        )


def ties_of(version: ModelVersion) -> Ties | None:
    """The tie model that a reward model was trained with; None where it knows no ties."""
    if version.kind != ModelVersion.Kind.REWARD or version.run is None:
        return None
    asked = version.run.config.get("reward")
    asked = asked if isinstance(asked, dict) else {}
    kind, value = asked.get("ties"), version.metrics.get("reward/tie_parameter")
    if kind not in NAMES or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return Ties(kind, float(value), learnt=asked.get("tie_parameter") is None)
