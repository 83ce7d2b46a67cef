"""The `alarms` section of config.json: what is watched while training, and what happens then.

Every default and its source: docs/how-to/read-the-alarms.md. Holds no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.engine.errors import ConfigError

#: What an alarm may do: nothing, say so, or end the run keeping the last good weights.
ACTIONS = ("off", "warn", "stop")

#: The alarms that can ring in a method; one that is not named here may report anything.
ALARMS_OF = {
    "sft": ("grad_norm", "not_finite"),
    "classify": ("grad_norm", "not_finite"),
    "reward": ("over_optimisation", "grad_norm", "not_finite"),
    "dpo": ("chosen_falling", "over_optimisation", "grad_norm", "not_finite"),
    "ppo": (
        "kl_budget",
        "length_drift",
        "eos_rate",
        "entropy_floor",
        "clip_fraction",
        "over_optimisation",
        "grad_norm",
        "not_finite",
    ),
    "kto": ("grad_norm", "not_finite"),
    "orpo": ("grad_norm", "not_finite"),
    "grpo": (
        "kl_budget",
        "length_drift",
        "eos_rate",
        "clip_fraction",
        "grad_norm",
        "not_finite",
    ),
    "rloo": ("kl_budget", "length_drift", "eos_rate", "grad_norm", "not_finite"),
    "evaluate": (),
    "sample": (),
    "pretrain": ("grad_norm", "not_finite"),
    "judge": (),
    "answer": (),
    "compare": (),
}
ALARMS = (
    "kl_budget",
    "length_drift",
    "eos_rate",
    "entropy_floor",
    "clip_fraction",
    "chosen_falling",
    "over_optimisation",
    "grad_norm",
    "not_finite",
)


@dataclass(frozen=True, kw_only=True)
class AlarmsConfig:
    """What each alarm does when it rings (off, warn, stop), and from where on it rings."""

    window: int = 3
    """Points of a curve that are averaged before they are compared; the first so many are what
    a later window is compared with."""
    kl_budget: str = "warn"
    """KL to the reference above its budget (PPO)."""
    kl_budget_nats: float = 20.0
    """Nats per response."""
    length_drift: str = "warn"
    """Responses so many times longer or shorter than at first (PPO)."""
    length_drift_factor: float = 2.0
    """How many times."""
    eos_rate: str = "warn"
    """Fewer responses end themselves than at first (PPO)."""
    eos_rate_fall: float = 0.3
    """How far the share falls, as a difference of shares."""
    entropy_floor: str = "warn"
    """The policy hardly varies its tokens any more (PPO)."""
    entropy_floor_share: float = 0.3
    """Of the entropy at first."""
    clip_fraction: str = "warn"
    """Too many probability ratios are clipped (PPO)."""
    clip_fraction_share: float = 0.3
    """Share of response tokens."""
    chosen_falling: str = "warn"
    """The preferred responses become less probable than under the reference (DPO)."""
    chosen_falling_nats: float = 0.3
    """Nats per token of the chosen responses."""
    over_optimisation: str = "warn"
    """What is optimised rises while accuracy on held-out human labels falls (DPO, PPO, reward)."""
    over_optimisation_rows: int = 32
    """Held-out pairs that are measured on the way, the first ones; 0 measures none."""
    over_optimisation_points: int = 4
    """The run is cut into so many parts; it is measured where two of them meet."""
    grad_norm: str = "warn"
    """Gradients so many times larger than at first."""
    grad_norm_factor: float = 10.0
    """How many times."""
    not_finite: str = "warn"
    """A figure left the range of numbers. (A loss or gradient that does ends every run.)"""

    def __post_init__(self) -> None:
        for name in ALARMS:
            expect(getattr(self, name) in ACTIONS, name, getattr(self, name), ", ".join(ACTIONS))
        expect(1 <= self.window <= 1000, "window", self.window, "1 to 1000")
        for name in ("kl_budget_nats", "chosen_falling_nats"):
            expect(getattr(self, name) > 0.0, name, getattr(self, name), "above 0")
        for name in ("length_drift_factor", "grad_norm_factor"):
            expect(getattr(self, name) > 1.0, name, getattr(self, name), "above 1")
        for name in ("eos_rate_fall", "entropy_floor_share", "clip_fraction_share"):
            value = getattr(self, name)
            expect(0.0 < value < 1.0, name, value, "above 0 and below 1")
        rows, points = self.over_optimisation_rows, self.over_optimisation_points
        expect(rows >= 0, "over_optimisation_rows", rows, "0 or more")
        expect(points >= 2, "over_optimisation_points", points, "2 or more")
        blind = self.over_optimisation == "stop" and rows == 0
        expect(not blind, "over_optimisation", "stop", "warn or off while no held-out row is read")

    @property
    def may_stop(self) -> bool:
        """Whether earlier weights have to be kept."""
        return any(getattr(self, name) == "stop" for name in ALARMS)

    def expect_obeyed(self, method: str) -> None:
        """Raise ConfigError for a stop that nothing in this method could ever cause."""
        possible = ALARMS_OF.get(method, ALARMS)
        if not possible and self != AlarmsConfig():
            raise ConfigError(f"alarms is set, and {method} trains nothing; leave it out")
        for name in ALARMS:
            idle = getattr(self, name) == "stop" and name not in possible
            known = f"off or warn here ({method} does not report what this alarm watches)"
            expect(not idle, name, "stop", known)


def expect(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"alarms.{name} is {value!r}; allowed: {allowed}")
