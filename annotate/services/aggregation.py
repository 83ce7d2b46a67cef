"""From judgments to preferences: a plain majority that owns up to ties."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.db import transaction
from django.db.models import Max

from annotate.models import Aggregation, Answer, Judgment, Preference, Project
from annotate.selectors.quality import ANSWERS, project_agreement
from annotate.services.storing import CHUNK

#: In full, because a snapshot's reader must be able to redo it.
RULE: dict[str, Any] = {
    "name": "majority",
    "version": 1,
    "probability": "(n_a + n_tie / 2) / (n_a + n_b + n_tie); 0.5 where everyone said both bad",
    "outcome": (
        "both_bad where more than half said so; else the more frequent of a and b among those who "
        "compared; tie where these are equal or ties outnumber both"
    ),
    "judgments": "current ones: neither superseded nor taken back; everyone counts the same",
}


def believe(counts: Counter[str]) -> tuple[str, float]:
    """(outcome, P(A better)) of one comparison's answers under RULE."""
    a, b, tie, bad = (counts[answer] for answer in ANSWERS)
    compared = a + b + tie
    probability = (a + tie / 2) / compared if compared else 0.5
    if bad > compared:
        return Preference.Outcome.BOTH_BAD, probability
    if a == b or tie > max(a, b):
        return Preference.Outcome.TIE, probability
    return (Preference.Outcome.A if a > b else Preference.Outcome.B), probability


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


def _preference(aggregation: Aggregation, comparison: int, counts: Counter[str]) -> Preference:
    outcome, probability = believe(counts)
    return Preference(
        workspace_id=aggregation.workspace_id,
        aggregation=aggregation,
        comparison_id=comparison,
        outcome=outcome,
        probability=probability,
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
        **{outcome: outcomes[outcome] for outcome in Preference.Outcome.values},
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
