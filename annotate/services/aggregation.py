"""From judgments to preferences: majority with honest ties."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict
from typing import Any

from django.db import transaction
from django.db.models import Count, Max
from django.db.models.functions import Coalesce

from annotate.models import (
    Aggregation,
    Answer,
    JudgeVersion,
    Judgment,
    MachineJudgment,
    Preference,
    Project,
)
from annotate.selectors.quality import project_agreement
from annotate.services.machine_judging import require_calibrated

#: Stored with every aggregation, so that a preference can be recomputed from its judgments.
RULE: dict[str, Any] = {
    "name": "majority",
    "version": 1,
    "probability": "(n_a + n_tie / 2) / (n_a + n_b + n_tie); 0.5 where everyone said both bad",
    "outcome": (
        "both_bad where more than half said so; else the more frequent of a and b among those who "
        "compared; tie where these are equal or ties outnumber both"
    ),
    "judgments": "current ones: neither superseded nor taken back",
}
#: Added to the rule where a machine's judgments stand beside people's.
MACHINE_RULE: dict[str, Any] = {
    "version": 1,
    "rows": "comparisons that no person judged; a person's word always stands before a machine's",
    "probability": "the machine's own where it gives one, else 1, 0 or 0.5 by its answer",
}
CHUNK = 1000


def believe(counts: Counter[str]) -> tuple[str, float]:
    """(outcome, P(A better)) of one comparison's answers under RULE."""
    a, b, tie, bad = (counts[answer] for answer in ("a", "b", "tie", "both_bad"))
    compared = a + b + tie
    probability = (a + tie / 2) / compared if compared else 0.5
    if bad > compared:
        return Preference.Outcome.BOTH_BAD, probability
    if a == b or tie > max(a, b):
        return Preference.Outcome.TIE, probability
    return (Preference.Outcome.A if a > b else Preference.Outcome.B), probability


def judgment_state(*, project: Project) -> dict[str, int]:
    """Judgments are only ever added, so their number and the newest tell whether any came since."""
    judgments = Judgment.objects.filter(comparison__project=project)
    return judgments.aggregate(count=Count("pk"), newest=Coalesce(Max("pk"), 0))


@transaction.atomic
def aggregate_project(*, project: Project, judge: JudgeVersion | None = None) -> Aggregation:
    """One pass over the project's current judgments: a preference for each judged comparison.

    judge: a machine whose judgments stand where no person judged. Raises NotCalibrated unless an
    admin accepted it for this project.
    """
    # Before the judgments are read: one that comes in between makes this aggregation outdated.
    state = judgment_state(project=project)
    answers: dict[int, list[tuple[int, str]]] = defaultdict(list)
    judgments = Judgment.objects.current().filter(comparison__project=project).order_by("pk")
    for pk, comparison, answer in judgments.values_list("pk", "comparison_id", "answer"):
        answers[comparison].append((pk, answer))
    rule = RULE
    if judge is not None:
        rule = {**RULE, "machine": MACHINE_RULE | provenance(judge, project)}
    aggregation = Aggregation.objects.create(
        workspace=project.workspace, project=project, rule=rule, judge=judge
    )
    preferences = []
    for comparison, given in answers.items():
        counts: Counter[str] = Counter(answer for _, answer in given)
        outcome, probability = believe(counts)
        preferences.append(
            Preference(
                workspace=project.workspace,
                aggregation=aggregation,
                comparison_id=comparison,
                outcome=outcome,
                probability=probability,
                n_a=counts[Answer.A],
                n_b=counts[Answer.B],
                n_tie=counts[Answer.TIE],
                n_both_bad=counts[Answer.BOTH_BAD],
            )
        )
    if judge is not None:
        preferences += machine_preferences(aggregation, judge, besides=set(answers))
    Preference.objects.bulk_create(preferences, batch_size=CHUNK)
    evidence = Preference.judgments.through
    evidence.objects.bulk_create(
        [
            evidence(preference_id=preference.pk, judgment_id=pk)
            for preference in preferences
            for pk, _ in answers.get(preference.comparison_id, ())
        ],
        batch_size=CHUNK,
    )
    outcomes = Counter(preference.outcome for preference in preferences)
    aggregation.summary = {
        "comparisons": len(preferences),
        "judgments": sum(len(given) for given in answers.values()),
        **({} if judge is None else {"by_machine": len(preferences) - len(answers)}),
        **{outcome: outcomes[outcome] for outcome in Preference.Outcome.values},
        "agreement": asdict(project_agreement(project=project)),
        "judgment_state": state,
    }
    aggregation.save(update_fields=["summary"])
    return aggregation


def provenance(judge: JudgeVersion, project: Project) -> dict[str, Any]:
    """Which machine judged, and the calibration that was accepted. Raises NotCalibrated."""
    calibration = require_calibrated(judge=judge, project=project)
    return {
        "judge": f"{judge}",
        "digest": judge.digest,
        "model": judge.settings.get("model") or judge.settings.get("base"),
        "calibration": calibration.pk,
        "calibrated_on": calibration.n,
        "agreement": calibration.figures["agreement"],
        "kappa": calibration.figures["kappa"],
    }


def machine_preferences(
    aggregation: Aggregation, judge: JudgeVersion, *, besides: set[int]
) -> list[Preference]:
    """What a machine believes of the comparisons that no person judged; ties included."""
    said = judge.judgments.filter(comparison__project=aggregation.project)
    said = said.exclude(answer=MachineJudgment.Answer.NONE).order_by("comparison_id")
    plain = {"a": 1.0, "b": 0.0, "tie": 0.5}
    found = []
    for row in said.iterator(chunk_size=2000):
        if row.comparison_id in besides:
            continue
        probability = plain[row.answer]
        # the letters' mean may lean against what both orders chose; the choice stands then
        own = row.probability
        if own is not None and row.answer != "tie" and (own > 0.5) == (row.answer == "a"):
            probability = own
        found.append(
            Preference(
                workspace=aggregation.workspace,
                aggregation=aggregation,
                comparison_id=row.comparison_id,
                outcome=row.answer,
                probability=probability,
                n_a=0,
                n_b=0,
                n_tie=0,
                n_both_bad=0,
                machine_judgment=row,
            )
        )
    return found
