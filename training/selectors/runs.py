"""Reading runs: progress, curves, and what two models answered to the same prompts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from annotate.models import Prompt
from training.engine.metrics import METRICS
from training.models import Round, Run, Sample

#: Curves of a run page, in the order in which people look for them.
CURVES = (
    "loss/train",
    "reward/accuracy",
    "reward/margin",
    "dpo/accuracy",
    "dpo/margin",
    "logps/chosen",
    "reward/mean",
    "kl/to_reference",
    "length/mean",
    "entropy",
    "clip/fraction",
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

    @property
    def last(self) -> float:
        return self.points[-1][1]


def run_curves(run: Run) -> list[Curve]:
    """The run's metrics with two points or more."""
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for name, step, value in run.metrics.order_by("step").values_list("name", "step", "value"):
        points[name].append((step, value))
    return [
        Curve(name, METRICS.get(name, ""), points[name])
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
    samples = Sample.objects.filter(run__round=round, index=0).select_related(
        "run", "prompt", "response"
    )
    by_stage: dict[str, dict[int, Sample]] = defaultdict(dict)
    for sample in samples.order_by("prompt_id", "pk"):
        by_stage[sample.run.stage][sample.prompt_id] = sample
    old = by_stage["sample_reference"]
    found = [Answers(s.prompt, old.get(pk), s) for pk, s in by_stage["sample_policy"].items()]
    return found[:limit]
