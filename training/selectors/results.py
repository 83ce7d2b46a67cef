"""What a run measured, as rows with interval and n; and the curves of one that still runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.engine.metrics import METRICS
from training.models import Run

#: Figures of the training itself, which rest on no held-out row.
TRAINING = ("loss/", "optim/", "reward/tie_parameter", "reward/reference_")
#: Figures measured on answers that a policy wrote, not on held-out pairs.
GENERATED = ("reward/mean", "kl/", "length/", "eos/", "entropy")


@dataclass(frozen=True)
class Measure:
    """One figure: its sentence, value, 95 % interval and how many rows it rests on."""

    name: str
    meaning: str
    value: float
    low: float | None
    high: float | None
    n: int | None
    #: Whether its interval is lacking because one prompt, text or document says nothing of others.
    of_one: bool = False


def measures(
    metrics: Mapping[str, Any], *, n_pairs: int | None, n_answers: int | None
) -> list[Measure]:
    """The rows of a metrics mapping; `…_low` and `…_high` become the interval of their figure."""
    found = []
    for name, value in metrics.items():
        if not isinstance(value, int | float) or is_bound(name, metrics):
            continue
        found.append(
            Measure(
                name=name,
                meaning=METRICS.get(name, ""),
                value=float(value),
                low=metrics.get(f"{name}_low"),
                high=metrics.get(f"{name}_high"),
                n=rests_on(name, n_pairs, n_answers),
                of_one=f"{name}_low" in METRICS and metrics.get(f"{name}_low") is None,
            )
        )
    return found


def rests_on(name: str, n_pairs: int | None, n_answers: int | None) -> int | None:
    """How many rows a figure rests on; what training itself tells rests on none held out."""
    if name.startswith(TRAINING):
        return None
    return n_answers if name.startswith(GENERATED) else n_pairs


def is_bound(name: str, metrics: Mapping[str, Any]) -> bool:
    """Whether a metric is one end of another's interval."""
    return any(
        name.endswith(end) and name.removesuffix(end) in metrics for end in ("_low", "_high")
    )


def run_measures(run: Run) -> list[Measure]:
    """What a finished run reported, with the n of each figure where the config tells it."""
    if not run.result or not run.result.get("metrics"):
        return []
    pairs = run.rows_of.n_test if run.rows_of is not None else None
    cap = run.config.get("data", {}).get("max_test_rows")
    if pairs is not None and cap is not None:
        pairs = min(pairs, cap)
    section = run.config.get(run.method) or {}
    answers = section.get("generate") or section.get("eval_prompts")
    return measures(run.result["metrics"], n_pairs=pairs, n_answers=answers)


#: The one figure by which a version is known in a list, in order of preference.
HEADLINES = (
    "reward/accuracy", "dpo/accuracy_after", "orpo/accuracy_after", "reward/mean_after",
    "loss/train",
)  # fmt: skip


def headline(metrics: Mapping[str, Any]) -> Measure | None:
    found = {measure.name: measure for measure in measures(metrics, n_pairs=None, n_answers=None)}
    return next((found[name] for name in HEADLINES if name in found), None)
