"""How far a round is."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import QuerySet

from annotate.models import Comparison
from training.models import Round
from training.selectors.round_events import newest_run
from training.selectors.runs import run_progress


@dataclass(frozen=True)
class RoundProgress:
    """The round's state and the newest run's step; `over` when nothing will move by itself."""

    state: str
    stage: str
    step: int
    total_steps: int
    over: bool


def round_progress(round: Round) -> RoundProgress:
    run = newest_run(round)
    step, total = run_progress(run) if run is not None else (0, 0)
    return RoundProgress(
        state=round.state,
        stage=run.stage if run is not None else "",
        step=step,
        total_steps=total,
        over=round.over,
    )


def comparisons_opened(round: Round) -> QuerySet[Comparison]:
    """The comparisons that this round's samples became."""
    return Comparison.objects.filter(project=round.project, origin_reference=f"round:{round.pk}")
