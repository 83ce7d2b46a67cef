"""Judges of a project as its pages and the API show them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings

from annotate.models import Calibration, JudgeVersion, Project
from annotate.selectors.judges import accepted_calibration, calibration_figures, model_of
from training.models import Job, ModelVersion

if TYPE_CHECKING:
    from annotate.statistics.calibration import Figure, Figures

#: (figure, title, how to read it, where no bias would put it or None).
FIGURES = (
    ("agreement", "Agreement", "with people's majority over A, B and tie", None),
    ("kappa", "Cohen's kappa", "agreement beyond chance", None),
    ("decided", "Agreement where both chose a side", "ties set aside", None),
    ("first_place", "Verdicts for the answer shown first", "0.5 without a bias by position", 0.5),
    ("machine_longer", "Machine prefers the longer answer", "where both chose a side", None),
    ("person_longer", "People prefer the longer answer", "on the same comparisons", None),
    ("longer_difference", "Difference of the two", "0 without a bias by length", 0.0),
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One figure with its words; `biased` where its interval leaves out the value of no bias."""

    name: str
    title: str
    meaning: str
    figure: Figure
    biased: bool


@dataclass(frozen=True)
class Standing:
    """A judge against people in one project, and whether snapshots may use it."""

    lines: list[Line]
    n: int
    wanted: int
    accepted: Calibration | None

    @property
    def enough(self) -> bool:
        return self.n >= self.wanted


def judge_standing(*, judge: JudgeVersion, project: Project) -> Standing:
    figures = calibration_figures(judge=judge, project=project)
    return Standing(
        lines=lines_of(figures),
        n=figures.agreement.n,
        wanted=settings.JUDGE_CALIBRATION_ROWS,
        accepted=accepted_calibration(judge=judge, project=project),
    )


def lines_of(figures: Figures) -> list[Line]:
    found = []
    for name, title, meaning, neutral in FIGURES:
        figure = getattr(figures, name)
        biased = (
            neutral is not None
            and figure.low is not None
            and not figure.low <= neutral <= figure.high
        )
        found.append(Line(name, title, meaning, figure, biased))
    return found


def model_words(judge: JudgeVersion) -> str:
    """The model that judges: a version of the workspace by its name, or a server's."""
    if judge.settings.get("url"):
        return f"{model_of(judge)} at {judge.settings['url']}"
    digest = judge.settings.get("adapter_sha256")
    if digest:
        version = ModelVersion.objects.filter(workspace=judge.workspace_id, digest=digest).first()
        return str(version) if version else f"{model_of(judge)} with adapter {digest[:12]}"
    return model_of(judge)


def judgings_in(*, project: Project) -> dict[int, list[Job]]:
    """The judging jobs of a project by their judge, the newest first; one query."""
    jobs = Job.objects.filter(
        kind=Job.Kind.JUDGE, workspace=project.workspace_id, payload__project=project.pk
    ).order_by("-pk")
    found: dict[int, list[Job]] = {}
    for job in jobs:
        found.setdefault(job.payload["judge"], []).append(job)
    return found


def cost_of(jobs: Iterable[Job]) -> float:
    """What judgings were reckoned to cost, in the currency of their prices.

    What one that did not succeed was answered is taken along, and counted, by the next.
    """
    counted, total = True, 0.0
    for job in jobs:  # the newest first
        succeeded = job.state == Job.State.SUCCEEDED
        if counted or succeeded:
            total += float((job.outcome or {}).get("cost", 0.0))
        counted = succeeded
    return total
