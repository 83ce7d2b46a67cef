"""Machines that judge: their versions, and how they agree with people."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import PurePath
from typing import TYPE_CHECKING

from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Sum

from annotate.models import (
    Answer,
    Calibration,
    Comparison,
    JudgeVersion,
    Judgment,
    MachineJudgment,
    Project,
)
from annotate.statistics.belief import believe

if TYPE_CHECKING:
    from annotate.statistics.calibration import Figures, Judged


def judges_of(*, project: Project) -> QuerySet[JudgeVersion]:
    """Versions of the workspace's judges, each with the counts of what it said in this project.

    By name, the newest version first; `accepted` says whether snapshots may use it here.
    """
    verdict = MachineJudgment.Answer
    here = Q(judgments__comparison__project=project)
    calibrations = Calibration.objects.filter(judge=OuterRef("pk"), project=project)
    return (
        JudgeVersion.objects.filter(workspace=project.workspace_id)
        .annotate(
            n_judged=Count("judgments", filter=here),
            n_flipped=Count("judgments", filter=here & Q(judgments__flipped=True)),
            n_failed=Count("judgments", filter=here & Q(judgments__answer=verdict.NONE)),
            n_tokens=Sum("judgments__tokens", filter=here, default=0),
            accepted=Exists(calibrations),
        )
        .order_by("name", "-version")
    )


def accepted_judges(*, project: Project) -> QuerySet[JudgeVersion]:
    """The versions whose judgments snapshots of this project may use."""
    accepted = Calibration.objects.filter(judge=OuterRef("pk"), project=project)
    return JudgeVersion.objects.filter(Exists(accepted)).order_by("name", "-version")


def model_of(judge: JudgeVersion) -> str:
    """What the judge asks, in words for people: no path on this machine is among them."""
    served = judge.settings.get("model")
    return str(served) if served else PurePath(str(judge.settings.get("base", ""))).name


def unjudged(
    *, project: Project, judge: JudgeVersion, by_people: bool = False
) -> QuerySet[Comparison]:
    """Comparisons that this version has not judged; by_people: only those that a person has."""
    found = project.comparisons.exclude(machine_judgments__judge=judge)
    if project.kind == Project.Kind.RANKINGS:
        found = found.exclude(group=None)  # a machine judges the pairs
    if by_people:
        found = found.filter(judgments__in=Judgment.objects.current()).distinct()
    return found.select_related("prompt", "response_a", "response_b").order_by("random_key", "pk")


def judged_by_both(*, judge: JudgeVersion, project: Project) -> list[Judged]:
    """Comparisons that people and the judge answered; the people's answer is their majority.

    Where people's most frequent answer is not one, it is a tie; both bad prefers neither, and is a
    tie here too. Comparisons without a verdict of the judge are left out (they are counted apart).
    """
    from annotate.statistics.calibration import Judged  # numpy, which the start need not pay

    said = MachineJudgment.objects.filter(judge=judge, comparison__project=project)
    said = said.exclude(answer=MachineJudgment.Answer.NONE).select_related(
        "comparison__response_a", "comparison__response_b"
    )
    people: dict[int, list[str]] = defaultdict(list)
    answers = Judgment.objects.current().filter(comparison__project=project)
    for comparison, answer in answers.values_list("comparison_id", "answer"):
        people[comparison].append(answer)
    rows = []
    for row in said.order_by("comparison_id"):
        given = people.get(row.comparison_id)
        if not given:
            continue
        a, b = (len(each.text) for each in row.comparison.pair)
        rows.append(
            Judged(
                prompt=str(row.comparison.prompt_id),
                person=majority(given),
                machine=row.answer,
                a_first=row.a_first,
                b_first=row.b_first,
                longer="a" if a > b else "b" if b > a else "",
            )
        )
    return rows


def majority(answers: list[str]) -> str:
    """ "a", "b" or "tie", as snapshots believe them, with both bad as a tie."""
    return believe(Counter("tie" if each == Answer.BOTH_BAD else each for each in answers))[0]


def calibration_figures(*, judge: JudgeVersion, project: Project) -> Figures:
    """The judge against people on what both judged, as it stands now."""
    from annotate.statistics.calibration import calibrate

    return calibrate(judged_by_both(judge=judge, project=project))


def accepted_calibration(*, judge: JudgeVersion, project: Project) -> Calibration | None:
    """The newest calibration of this version in this project that an admin accepted."""
    return judge.calibrations.filter(project=project).order_by("-pk").first()
