"""Alarms: rules over the curves of a run, each with what it watches, its threshold and a remedy.

Every metric of every loop passes `Alarms.see` once per point (an optimizer step; PPO: an update). A
point describes the weights that its step began with: point n those after n - 1 points. An alarm
rings once in a run. All it knows is in `state()`, so a run that goes on from a checkpoint raises
the same alarms at the same steps. Sources and reasons: docs/how-to/read-the-alarms.md. Holds no
torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean, median
from typing import Any

from training.engine.alarm_settings import ALARMS, ALARMS_OF, AlarmsConfig

#: Points whose median gradient norm is what later ones are compared with.
NORMS = 10
HELD_OUT = "held_out/accuracy"
#: What over-optimisation optimises, by method.
OPTIMISED = {"ppo": "reward/mean", "dpo": "dpo/margin", "reward": "reward/margin"}


@dataclass(frozen=True)
class Alarm:
    """An alarm that rang: which rule, when, what was seen, what to do."""

    name: str
    #: "warn" or "stop".
    action: str
    metric: str
    step: int
    value: float
    threshold: float
    message: str
    remedy: str
    #: Weights after at most so many points are older than all that it judged.
    good_until: int

    def ended(self, kept_step: int) -> str:
        """The sentence for a run that it ended."""
        kept = f"the weights of step {kept_step} are kept"
        return (
            f"stopped at step {self.step} by the alarm {self.name}: {self.message}; "
            f"{kept if kept_step else 'nothing was worth keeping'}. {self.remedy}"
        )


@dataclass
class Seen:
    """What the rules look at: the newest points of each curve, and its first ones."""

    window: int
    points: int = 0
    #: Every metric that a rule watches: its first and its newest `window` values.
    first: dict[str, list[float]] = field(default_factory=dict)
    newest: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    norms: list[float] = field(default_factory=list)
    #: The held-out measurement of the highest accuracy: accuracy, low, optimised, point.
    best: dict[str, float] | None = None

    def add(self, values: Mapping[str, float]) -> None:
        self.points += 1
        for name in WATCHED:
            value = values.get(name)
            if value is None or not math.isfinite(value):
                continue
            if len(self.first.setdefault(name, [])) < self.window:
                self.first[name].append(value)
            self.newest[name] = [*self.newest.get(name, []), value][-self.window :]
            self.counts[name] = self.counts.get(name, 0) + 1
        norm = values.get("optim/grad_norm")
        if norm is not None and math.isfinite(norm) and len(self.norms) < NORMS:
            self.norms.append(norm)

    def now(self, name: str) -> float | None:
        """Mean of the newest window; None before it is full."""
        values = self.newest.get(name, [])
        return fmean(values) if len(values) == self.window else None

    def at_first(self, name: str) -> float | None:
        """Mean of the first window; None until the newest one no longer overlaps it."""
        return fmean(self.first[name]) if self.counts.get(name, 0) >= 2 * self.window else None


#: (value, threshold, message) where a rule is broken.
Broken = tuple[float, float, str] | None


def kl_budget(seen: Seen, config: AlarmsConfig) -> Broken:
    value, most = seen.now("kl/to_reference"), config.kl_budget_nats
    if value is None or value <= most:
        return None
    return value, most, f"KL to the reference is {value:.1f} nats per response (budget {most:g})"


def length_drift(seen: Seen, config: AlarmsConfig) -> Broken:
    value, before = seen.now("length/mean"), seen.at_first("length/mean")
    if value is None or not before:
        return None
    longest = before * config.length_drift_factor
    shortest = before / config.length_drift_factor
    if shortest <= value <= longest:
        return None
    bound = longest if value > longest else shortest
    return value, bound, f"responses have {value:.0f} tokens on average, and had {before:.0f}"


def eos_rate(seen: Seen, config: AlarmsConfig) -> Broken:
    value, before = seen.now("eos/rate"), seen.at_first("eos/rate")
    if value is None or before is None or value >= before - config.eos_rate_fall:
        return None
    message = f"{value:.0%} of the responses end themselves, and {before:.0%} did at first"
    return value, before - config.eos_rate_fall, message


def entropy_floor(seen: Seen, config: AlarmsConfig) -> Broken:
    value, before = seen.now("entropy"), seen.at_first("entropy")
    if value is None or before is None or value >= before * config.entropy_floor_share:
        return None
    message = f"the policy's entropy is {value:.2f} nats per token, and was {before:.2f} at first"
    return value, before * config.entropy_floor_share, message


def clip_fraction(seen: Seen, config: AlarmsConfig) -> Broken:
    value, most = seen.now("clip/fraction"), config.clip_fraction_share
    if value is None or value <= most:
        return None
    return value, most, f"{value:.0%} of the probability ratios are clipped (at most {most:.0%})"


def chosen_falling(seen: Seen, config: AlarmsConfig) -> Broken:
    value, least = seen.now("logps/chosen_change"), -config.chosen_falling_nats
    if value is None or value >= least:
        return None
    message = f"the chosen responses lost {-value:.2f} nats per token against the reference"
    return value, least, message


def grad_norm(seen: Seen, config: AlarmsConfig) -> Broken:
    recent = seen.newest.get("optim/grad_norm", [])
    enough = seen.counts.get("optim/grad_norm", 0) >= NORMS + seen.window
    if not enough or median(seen.norms) == 0.0:
        return None
    value, most = median(recent), config.grad_norm_factor * median(seen.norms)
    if value <= most:
        return None
    return (
        value,
        most,
        f"the gradient norm is {value:.3g}, and was {median(seen.norms):.3g} at first",
    )


@dataclass(frozen=True)
class Rule:
    """One alarm: the metric it watches, its rule in words, and what helps."""

    metric: str
    rule: str
    remedy: str
    broken: Callable[[Seen, AlarmsConfig], Broken] | None = None


RULES: dict[str, Rule] = {
    "kl_budget": Rule(
        "kl/to_reference",
        "Mean of the window above kl_budget_nats.",
        "Raise ppo.kl_coef or set ppo.kl_target, lower optim.lr, or run fewer updates.",
        kl_budget,
    ),
    "length_drift": Rule(
        "length/mean",
        "Mean of the window more than length_drift_factor times that of the first, or less than "
        "its inverse.",
        "Read the newest answers: if they pad or break off, the reward model pays for length; "
        "train it on rows of balanced length, or raise ppo.kl_coef.",
        length_drift,
    ),
    "eos_rate": Rule(
        "eos/rate",
        "Mean of the window more than eos_rate_fall below that of the first.",
        "Raise ppo.missing_eos_penalty, or ppo.max_new_tokens where good answers are longer.",
        eos_rate,
    ),
    "entropy_floor": Rule(
        "entropy",
        "Mean of the window below entropy_floor_share of that of the first.",
        "Lower optim.lr or ppo.epochs, or raise ppo.kl_coef; more different prompts help too.",
        entropy_floor,
    ),
    "clip_fraction": Rule(
        "clip/fraction",
        "Mean of the window above clip_fraction_share.",
        "Lower optim.lr or ppo.epochs: each update moves the policy further than it may.",
        clip_fraction,
    ),
    "chosen_falling": Rule(
        "logps/chosen_change",
        "Mean of the window below minus chosen_falling_nats.",
        "Add dpo.nll_weight (1 is RPO's), lower optim.lr, or raise dpo.beta.",
        chosen_falling,
    ),
    "over_optimisation": Rule(
        HELD_OUT,
        "Below the low end of the interval of the best measurement so far, while the window of "
        "what is optimised (PPO reward/mean, DPO dpo/margin, reward model reward/margin) is above "
        "what it was there.",
        "Keep the earlier weights; collect judgments of the new answers, train the reward model "
        "on them, and run fewer steps or with a stronger pull to the reference.",
    ),
    "grad_norm": Rule(
        "optim/grad_norm",
        f"Median of the window more than grad_norm_factor times that of the first {NORMS} points.",
        "Lower optim.lr or lengthen optim.warmup_ratio, and look at the rows of those steps.",
        grad_norm,
    ),
    "not_finite": Rule(
        "any",
        "A figure that is no finite number.",
        "Lower optim.lr, look at the rows of that step, or compute in float32.",
    ),
}
#: What `Seen` keeps of a point.
WATCHED = (
    *(rule.metric for rule in RULES.values() if rule.broken is not None),
    *OPTIMISED.values(),
)


class Alarms:
    """Watches the curves of one run."""

    def __init__(self, config: AlarmsConfig, method: str) -> None:
        self._config = config
        self._optimised = OPTIMISED.get(method, "")
        self._names = [
            name for name in ALARMS_OF.get(method, ALARMS) if getattr(config, name) != "off"
        ]
        self.seen = Seen(config.window)
        #: What rang so far, in order.
        self.rung: list[Alarm] = []

    @property
    def stopping(self) -> Alarm | None:
        """The alarm that asks the loop to end, if one does."""
        return next((alarm for alarm in self.rung if alarm.action == "stop"), None)

    def see(self, step: int, values: Mapping[str, float]) -> list[Alarm]:
        """Take in one point of every curve; returns the alarms that ring now."""
        self.seen.add(values)
        before = {alarm.name for alarm in self.rung}
        found = [self._alarm(name, step, values) for name in self._names if name not in before]
        rang = [alarm for alarm in found if alarm is not None]
        self.rung += rang
        self._remember_best(values)
        return rang

    def _alarm(self, name: str, step: int, values: Mapping[str, float]) -> Alarm | None:
        rule, good_until = RULES[name], self.seen.points - 1 - self.seen.window
        metric = rule.metric
        if name == "not_finite":
            lost = sorted(key for key, value in values.items() if not math.isfinite(value))
            metric, good_until = (lost[0] if lost else ""), self.seen.points - 2
            # JSON has no NaN, so the value is told in the message
            broken: Broken = (0.0, 0.0, f"{', '.join(lost)} left the numbers") if lost else None
        elif name == "over_optimisation":
            broken = self._over_optimised(values)
            good_until = int(self.seen.best["point"]) if self.seen.best else 0
        else:
            assert rule.broken is not None  # noqa: S101 - the two above have no rule of their own
            broken = rule.broken(self.seen, self._config) if metric in values else None
        if broken is None:
            return None
        value, threshold, message = broken
        return Alarm(
            name=name,
            action=getattr(self._config, name),
            metric=metric,
            step=step,
            value=value,
            threshold=threshold,
            message=message,
            remedy=rule.remedy,
            good_until=max(0, good_until),
        )

    def _over_optimised(self, values: Mapping[str, float]) -> Broken:
        """Gao et al. 2023 (arXiv 2210.10760): the proxy goes on rising, what people want falls."""
        best, accuracy = self.seen.best, values.get(HELD_OUT)
        optimised = self.seen.now(self._optimised)
        if best is None or accuracy is None or optimised is None or accuracy >= best["low"]:
            return None
        if optimised <= best["optimised"]:
            return None
        message = (
            f"the optimised {self._optimised} rose from {best['optimised']:.3g} to "
            f"{optimised:.3g}, while accuracy on held-out human labels fell from "
            f"{best['accuracy']:.0%} to {accuracy:.0%}"
        )
        return accuracy, best["low"], message

    def is_best(self, accuracy: float) -> bool:
        return self.seen.best is None or accuracy >= self.seen.best["accuracy"]

    def _remember_best(self, values: Mapping[str, float]) -> None:
        accuracy, optimised = values.get(HELD_OUT), self.seen.now(self._optimised)
        if accuracy is None or optimised is None or not self.is_best(accuracy):
            return
        self.seen.best = {
            "accuracy": accuracy,
            "low": values[f"{HELD_OUT}_low"],
            "optimised": optimised,
            "point": float(self.seen.points - 1),
        }

    def state(self) -> dict[str, Any]:
        """All of it, as plain JSON, for a checkpoint."""
        return {"seen": asdict(self.seen), "rung": [asdict(alarm) for alarm in self.rung]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.seen = Seen(**state["seen"])
        self.rung = [Alarm(**alarm) for alarm in state["rung"]]


def held_out_due(*, total: int, parts: int) -> set[int]:
    """After how many points held-out accuracy is measured: where two parts of the run meet."""
    return {math.ceil(total * part / parts) for part in range(1, parts)} - {total}
