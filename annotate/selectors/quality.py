"""How good the judgments are: agreement, who agrees with whom, and the pull of the left side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from django.db.models import Count, Q

from annotate.models import Annotator, Answer, Judgment, Project
from annotate.models.judgments import JudgmentQuerySet
from annotate.statistics.intervals import wilson

#: The values of the nominal scale, in a fixed order.
ANSWERS = (Answer.A, Answer.B, Answer.TIE, Answer.BOTH_BAD)


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha (nominal), its 95 % interval clustered by prompt, and what it rests on.

    `n_comparisons` have two judgments or more; `n_judgments` and `n_annotators` count all.
    """

    alpha: float | None
    low: float | None
    high: float | None
    n_comparisons: int
    n_judgments: int
    n_annotators: int
    reason: str
    #: Share of pairs of judgments on one comparison that agree, chance included.
    percent: float | None = None


@dataclass(frozen=True)
class Share:
    """Of `n` judgments for one side, the share for the left one with Wilson's 95 % interval."""

    left: float | None
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class PairAgreement:
    """Two annotators, the comparisons both judged, and the share they answered alike."""

    first: Annotator
    second: Annotator
    share: float
    n: int
    low: float
    high: float


def project_agreement(*, project: Project) -> Agreement:
    # numpy is loaded with the first agreement somebody asks for, not with the web process.
    from annotate.statistics import agreement

    rows = list(
        _current(project)
        .order_by("comparison_id", "pk")
        .values_list("comparison_id", "comparison__prompt_id", "annotator_id", "answer")
    )
    annotators = {annotator for _, _, annotator, _ in rows}
    prompts = {comparison: prompt for comparison, prompt, _, _ in rows}
    place = {answer.value: number for number, answer in enumerate(ANSWERS)}
    units, counts = agreement.count_ratings(
        [comparison for comparison, *_ in rows],
        [place[answer] for *_, answer in rows],
        len(ANSWERS),
    )
    alpha = agreement.krippendorff_alpha(counts, clusters=[prompts[unit] for unit in units])
    interval = alpha.interval
    return Agreement(
        alpha=alpha.value,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        n_comparisons=alpha.n_units,
        n_judgments=len(rows),
        n_annotators=len(annotators),
        reason=alpha.reason if rows else "there are no judgments yet",
        percent=agreement.percent_agreement(counts),
    )


def annotator_matrix(*, project: Project) -> list[PairAgreement]:
    """Every two annotators with a comparison in common, the most comparisons first."""
    answers: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for comparison, annotator, answer in _current(project).values_list(
        "comparison_id", "annotator_id", "answer"
    ):
        answers[comparison].append((annotator, answer))
    met, agreed = _meetings(answers.values())
    people = Annotator.objects.select_related("user").in_bulk({who for pair in met for who in pair})
    rows = []
    for (first, second), n in sorted(met.items(), key=lambda item: (-item[1], item[0])):
        interval = wilson(agreed[first, second], n)
        share = agreed[first, second] / n
        rows.append(
            PairAgreement(people[first], people[second], share, n, interval.low, interval.high)
        )
    return rows


def position_share(*, project: Project) -> Share:
    """How often the answer shown on the left was preferred; imports do not say what was left."""
    left = Q(answer=Answer.A, swapped=False) | Q(answer=Answer.B, swapped=True)
    counts = (
        _current(project)
        .filter(answer__in=[Answer.A, Answer.B], swapped__isnull=False)
        .aggregate(n=Count("pk"), left=Count("pk", filter=left))
    )
    interval = wilson(counts["left"], counts["n"])
    share = counts["left"] / counts["n"] if counts["n"] else None
    return Share(left=share, n=counts["n"], low=interval.low, high=interval.high)


def _current(project: Project) -> JudgmentQuerySet:
    return Judgment.objects.current().filter(comparison__project=project)


def _meetings(
    comparisons: Iterable[list[tuple[int, str]]],
) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
    met: dict[tuple[int, int], int] = defaultdict(int)
    agreed: dict[tuple[int, int], int] = defaultdict(int)
    for answers in comparisons:
        for (one, said), (other, said_too) in combinations(sorted(answers), 2):
            met[one, other] += 1
            agreed[one, other] += said == said_too
    return met, agreed
