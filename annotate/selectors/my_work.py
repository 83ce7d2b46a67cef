"""What a person did: their judgments, their hours, and how others saw the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import TruncDate

from annotate.models import Annotator, Judgment, Project
from annotate.models.prompts import Words
from annotate.statistics.intervals import wilson

#: Below so many judgments of others on the same comparisons a share says nothing.
ENOUGH = 30
#: A revision repeats the time of what it revises.
TOOK_TIME = Q(supersedes=None) | Q(supersedes__answer="withdrawn")


def judgments_of(
    *, annotator: Annotator, search: str = "", project: str = ""
) -> QuerySet[Judgment]:
    """A person's judgments that stand, the newest first; search: words of prompt or reason."""
    rows = Judgment.objects.standing().filter(annotator=annotator, comparison__group=None)
    if project:
        rows = rows.filter(comparison__project__slug=project)
    if search:
        rows = rows.alias(asked=Words("comparison__prompt__messages")).filter(
            Q(rationale__icontains=search) | Q(label__icontains=search) | Q(asked__icontains=search)
        )
    related = ("comparison__project", "comparison__prompt", "assignment")
    return rows.select_related(*related).order_by("-created_at", "-pk")


@dataclass(frozen=True)
class Day:
    """One day (UTC) in one project."""

    day: str
    project: str
    judgments: int
    active_minutes: float


def hours_of(*, annotator: Annotator) -> list[Day]:
    """Judgments and active minutes by day and project, the newest first; what was taken back or
    revised took its time too."""
    rows = (
        Judgment.objects.filter(annotator=annotator, comparison__group=None)
        .exclude(answer="withdrawn")
        .annotate(day=TruncDate("created_at"))
        .values("day", "comparison__project__name")
        .annotate(n=Count("pk"), ms=Sum("active_ms", filter=TOOK_TIME))
        .order_by("-day", "comparison__project__name")
    )
    return [
        Day(f"{row['day']}", row["comparison__project__name"], row["n"], (row["ms"] or 0) / 60_000)
        for row in rows
    ]


@dataclass(frozen=True)
class Agreement:
    """Share of others' judgments on the same comparisons that say the same."""

    project: Project
    same: int
    n: int

    @property
    def enough(self) -> bool:
        return self.n >= ENOUGH

    @property
    def share(self) -> float:
        return self.same / self.n

    @property
    def low(self) -> float:
        return wilson(self.same, self.n)[0]

    @property
    def high(self) -> float:
        return wilson(self.same, self.n)[1]


def agreement_of(*, annotator: Annotator) -> list[Agreement]:
    """In each project that shows it to its people."""
    projects = Project.objects.filter(workspace=annotator.workspace_id, unblinded=True)
    return [found for project in projects if (found := agreement_in(project, annotator)).n]


def agreement_in(project: Project, annotator: Annotator) -> Agreement:
    said = words(Judgment.objects.filter(annotator=annotator), project)
    mine = {comparison: word for comparison, _, word in said}
    others = words(
        Judgment.objects.exclude(annotator=annotator).filter(comparison__in=list(mine)), project
    )
    pairs = [mine[comparison] == word for comparison, _, word in others]
    return Agreement(project, sum(pairs), len(pairs))


def words(rows: QuerySet[Judgment], project: Project) -> Iterable[tuple[int, int, str]]:
    """(comparison, annotator, word) of the judgments that stand and are no repeats."""
    standing = rows.filter(comparison__project=project, superseded_by=None, is_repeat=False)
    found = standing.exclude(answer__in=["withdrawn", "ranking"])
    for comparison, person, answer, label in found.values_list(
        "comparison_id", "annotator_id", "answer", "label"
    ):
        yield comparison, person, label or answer
