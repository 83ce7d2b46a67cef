"""From judgments to preferences: a plain majority that owns up to ties."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.db import transaction
from django.db.models import Max

from annotate.models import Aggregation, Answer, Judgment, Preference, Project
from annotate.selectors.quality import project_agreement
from annotate.services.storing import CHUNK

#: In full, because a snapshot's reader must be able to redo it.
RULE: dict[str, Any] = {
    "name": "majority",
    "version": 1,
    "judgments": "each annotator's current answer; answers taken back or superseded do not count",
    "outcome": (
        "both_bad if more than half of the answers are both_bad; otherwise the most frequent of a, "
        "b and tie; tie where the most frequent is shared"
    ),
    "probability": "(n_a + n_tie / 2) / (n_a + n_b + n_tie); 0.5 where all answers are both_bad",
    "weights": "every annotator counts the same",
}


@transaction.atomic
def aggregate_project(*, project: Project) -> Aggregation:
    """What the judgments of each comparison amount to now, as a new aggregation."""
    # Taken before the judgments are read: one that comes in between makes this aggregation stale.
    state = judgment_state(project=project)
    by_comparison: dict[int, list[tuple[int, str]]] = {}
    rows = (
        Judgment.objects.current()
        .filter(comparison__project=project)
        .order_by("comparison_id", "pk")
        .values_list("comparison_id", "pk", "answer")
    )
    for comparison, judgment, answer in rows:
        by_comparison.setdefault(comparison, []).append((judgment, answer))
    aggregation = Aggregation.objects.create(
        workspace=project.workspace, project=project, rule=RULE, summary={}
    )
    preferences = Preference.objects.bulk_create(
        [
            _preference(aggregation, comparison, Counter(answer for _, answer in judgments))
            for comparison, judgments in by_comparison.items()
        ],
        batch_size=CHUNK,
    )
    through = Preference.judgments.through
    through.objects.bulk_create(
        [
            through(preference_id=preference.pk, judgment_id=judgment)
            for preference in preferences
            for judgment, _ in by_comparison[preference.comparison_id]
        ],
        batch_size=CHUNK,
    )
    aggregation.summary = _summary(project, preferences) | {"judgment_state": state}
    aggregation.save(update_fields=["summary"])
    return aggregation


def judgment_state(*, project: Project) -> dict[str, int]:
    """Judgments are only ever added, so their number and the newest tell whether any came since."""
    rows = Judgment.objects.filter(comparison__project=project)
    return {"count": rows.count(), "newest": rows.aggregate(newest=Max("pk"))["newest"] or 0}


def outcome_of(counts: Counter[str]) -> str:
    """The outcome under `RULE`."""
    if 2 * counts[Answer.BOTH_BAD] > counts.total():
        return Preference.Outcome.BOTH_BAD
    most = max(counts[answer] for answer in (Answer.A, Answer.B, Answer.TIE))
    leaders = [answer for answer in (Answer.A, Answer.B, Answer.TIE) if counts[answer] == most]
    return Preference.Outcome(leaders[0]) if len(leaders) == 1 else Preference.Outcome.TIE


def probability_of(counts: Counter[str]) -> float:
    """P(A is better) under `RULE`."""
    heard = counts[Answer.A] + counts[Answer.B] + counts[Answer.TIE]
    return (counts[Answer.A] + counts[Answer.TIE] / 2) / heard if heard else 0.5


def _preference(aggregation: Aggregation, comparison: int, counts: Counter[str]) -> Preference:
    return Preference(
        workspace_id=aggregation.workspace_id,
        aggregation=aggregation,
        comparison_id=comparison,
        outcome=outcome_of(counts),
        probability=probability_of(counts),
        n_a=counts[Answer.A],
        n_b=counts[Answer.B],
        n_tie=counts[Answer.TIE],
        n_both_bad=counts[Answer.BOTH_BAD],
    )


def _summary(project: Project, preferences: list[Preference]) -> dict[str, Any]:
    outcomes = Counter(preference.outcome for preference in preferences)
    agreement = project_agreement(project=project)
    return {
        "comparisons": len(preferences),
        "outcomes": {str(outcome): outcomes[outcome] for outcome in Preference.Outcome},
        "judgments": agreement.n_judgments,
        "annotators": agreement.n_annotators,
        "agreement": {
            "krippendorff_alpha": agreement.alpha,
            "low": agreement.low,
            "high": agreement.high,
            "percent": agreement.percent,
            "comparisons": agreement.n_comparisons,
            "reason": agreement.reason,
        },
    }
