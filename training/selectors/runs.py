"""Reading runs: progress, curves, and what two models answered to the same prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from annotate.models import Prompt
from training.engine.metrics import METRICS
from training.models import Round, Run, Sample
from training.selectors.alarms import Rang

#: Curves of a run page, in the order in which people look for them.
CURVES = (
    "loss/train",
    "reward/accuracy",
    "reward/margin",
    "dpo/accuracy",
    "dpo/margin",
    "kto/margin",
    "kto/kl",
    "orpo/accuracy",
    "orpo/log_odds",
    "orpo/nll",
    "logps/chosen",
    "logps/chosen_change",
    "held_out/accuracy",
    "reward/mean",
    "reward/std",
    "reward/same",
    "kl/to_reference",
    "kl/k3",
    "length/mean",
    "eos/rate",
    "entropy",
    "entropy/full",
    "clip/fraction",
    "rloo/clip_fraction",
    "loss/value",
)


def run_progress(run: Run) -> tuple[int, int]:
    """(step, total steps) of a run's newest progress event; (0, 0) before the first one."""
    latest = run.events.filter(kind="progress").order_by("-attempt", "-seq").first()
    if latest is None:
        return 0, 0
    return int(latest.body.get("step", 0)), int(latest.body.get("total_steps", 0))


@dataclass(frozen=True)
class Curve:
    """One metric over a run's steps."""

    name: str
    meaning: str
    points: list[tuple[int, float]]
    #: The threshold of an alarm that rang over it.
    limit: float | None = None

    @property
    def last(self) -> float:
        return self.points[-1][1]


def run_curves(run: Run, alarms: Iterable[Rang] = ()) -> list[Curve]:
    """The run's metrics with two points or more, with the thresholds of alarms that rang."""
    limits = {alarm.metric: alarm.threshold for alarm in alarms if alarm.run.pk == run.pk}
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for name, step, value in (
        run.metrics.filter(name__in=CURVES).order_by("step").values_list("name", "step", "value")
    ):
        points[name].append((step, value))
    return [
        Curve(name, METRICS.get(name, ""), points[name], limits.get(name))
        for name in CURVES
        if len(points.get(name, [])) > 1
    ]


@dataclass(frozen=True)
class Answers:
    """One prompt with the reference's and the new policy's first answer."""

    prompt: Prompt
    old: Sample | None
    new: Sample


def answers_side_by_side(round: Round, *, limit: int = 12) -> list[Answers]:
    samples = Sample.objects.filter(run__round=round, index=0).select_related("prompt", "response")
    new = samples.filter(run__stage="sample_policy").order_by("prompt_id", "pk")[:limit]
    after = {sample.prompt_id: sample for sample in new}
    old = samples.filter(run__stage="sample_reference", prompt__in=list(after)).order_by("pk")
    before = {sample.prompt_id: sample for sample in old}
    return [Answers(sample.prompt, before.get(pk), sample) for pk, sample in after.items()]
