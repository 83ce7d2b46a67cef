"""Can the labels be trusted? Agreement, and whether the left answer is preferred."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass

from django.core.cache import cache
from django.db.models import Count, Max, Q

from annotate.models import Aggregation, Annotator, Answer, Judgment, Project
from annotate.models.judgments import JudgmentQuerySet
from annotate.statistics.intervals import wilson

#: How long a computed agreement is kept; its key names what it was computed from.
REMEMBERED_S = 7 * 86400
#: More people than this no longer fit a picture; the table has them all.
LARGEST_MAP = 16


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha over a project's answers; `alpha` is None with a reason."""

    alpha: float | None
    low: float | None
    high: float | None
    n_comparisons: int
    n_judgments: int
    n_annotators: int
    reason: str


@dataclass(frozen=True)
class Share:
    """How often the answer on the left was preferred, among n answers for one side."""

    left: float | None
    n: int
    low: float
    high: float


def project_agreement(*, project: Project) -> Agreement:
    """Agreement on comparisons that two or more people judged, its interval clustered by prompt."""
    return agreement_of(Judgment.objects.current().filter(comparison__project=project))


def remembered_agreement(*, project: Project) -> Agreement:
    """`project_agreement`, computed once for each state of the judgments.

    Its interval resamples a thousand times, and a page that everyone opens should not wait for it.
    """
    state = Judgment.objects.filter(comparison__project=project).aggregate(
        n=Count("pk"), newest=Max("pk")
    )
    key = f"agreement:{project.pk}:{state['n']}:{state['newest']}"
    found = cache.get(key)
    if found is None:
        found = project_agreement(project=project)
        cache.set(key, found, REMEMBERED_S)
    return found


def frozen_agreement(*, aggregation: Aggregation) -> Agreement:
    """Agreement of exactly the judgments an aggregation used: what it was at that time."""
    key = f"agreement-of-aggregation:{aggregation.pk}"
    found = cache.get(key)
    if found is None:
        found = agreement_of(Judgment.objects.filter(preferences__aggregation=aggregation))
        cache.set(key, found, REMEMBERED_S)
    return found


def agreement_of(judgments: JudgmentQuerySet) -> Agreement:
    rows = judgments.with_word().values_list(
        "comparison_id", "comparison__prompt_id", "annotator_id", "word"
    )
    units: dict[int, list[str]] = defaultdict(list)
    prompts: dict[int, int] = {}
    annotators: dict[int, set[int]] = defaultdict(set)
    for comparison, prompt, annotator, answer in rows:
        units[comparison].append(answer)
        prompts[comparison] = prompt
        annotators[comparison].add(annotator)
    # numpy comes along: a tenth of a second and 25 MB that the start of the web need not pay.
    from annotate.statistics.agreement import alpha_with_interval

    found = alpha_with_interval(list(units.values()), [prompts[unit] for unit in units])
    overlapping = {a for unit, given in units.items() if len(given) > 1 for a in annotators[unit]}
    return Agreement(
        alpha=found.value,
        low=found.low,
        high=found.high,
        n_comparisons=found.n_units,
        n_judgments=found.n_values,
        n_annotators=len(overlapping),
        reason=found.reason,
    )


def position_share(*, project: Project) -> Share:
    """How often the left answer won, among answers for one side whose layout is known."""
    judgments = (
        Judgment.objects.current()
        .filter(comparison__project=project, answer__in=[Answer.A, Answer.B], swapped__isnull=False)
        .aggregate(
            n=Count("pk"),
            left=Count(
                "pk",
                filter=Q(answer=Answer.A, swapped=False) | Q(answer=Answer.B, swapped=True),
            ),
        )
    )
    n, left = judgments["n"], judgments["left"]
    low, high = wilson(left, n)
    return Share(left=left / n if n else None, n=n, low=low, high=high)


@dataclass(frozen=True)
class PairAgreement:
    """How often two annotators gave the same answer, on n comparisons both judged.

    `kappa` is Cohen's; None where chance agreement is undefined.
    """

    first: str
    second: str
    share: float
    n: int
    kappa: float | None = None


def matrix_cells(pairs: list[PairAgreement]) -> dict[str, object]:
    """The matrix as a heat-map wants it: the names in order, and (share, n) of every two."""
    names = sorted({name for pair in pairs for name in (pair.first, pair.second)})[:LARGEST_MAP]
    return {
        "names": names,
        "cells": {(pair.first, pair.second): (pair.share, pair.n) for pair in pairs},
    }


def annotator_matrix(*, project: Project) -> list[PairAgreement]:
    """Agreement of every two annotators of a project."""
    from annotate.statistics.agreement import pairwise_agreement  # numpy, as above

    rows = Judgment.objects.current().filter(comparison__project=project)
    answers = list(rows.with_word().values_list("annotator_id", "comparison_id", "word"))
    names = names_apart({annotator for annotator, _, _ in answers})
    pairs = []
    for people, found in pairwise_agreement(answers).items():
        first, second = sorted(names[pk] for pk in people)
        pairs.append(PairAgreement(first, second, found.share, found.n, found.kappa))
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def names_apart(annotators: set[int]) -> dict[Hashable, str]:
    """The annotators' names by id; two people of one name are told apart by address or number."""
    people = Annotator.objects.select_related("user").in_bulk(annotators)
    shared = Counter(str(person) for person in people.values())
    return {
        pk: str(person)
        if shared[str(person)] == 1
        else f"{person} ({person.user.email if person.user else pk})"
        for pk, person in people.items()
    }
