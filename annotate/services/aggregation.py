"""From judgments to preferences: majority with honest ties, of answers and of labels alike."""

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
from annotate.selectors.judges import model_of
from annotate.selectors.quality import project_agreement
from annotate.services.labels import current_labels
from annotate.services.machine_judging import require_calibrated
from annotate.statistics.belief import believe

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
LABEL_RULE: dict[str, Any] = {
    "name": "majority",
    "version": 1,
    "probability": "n_label / n: the share of those who gave the label",
    "outcome": "the label given most often; tie where two were given equally often",
    "judgments": (
        "current ones: neither superseded nor taken back, and of a label that is still on the list"
    ),
}
#: Added to the rule where a machine's judgments stand beside people's.
MACHINE_RULE: dict[str, Any] = {
    "version": 1,
    "rows": "comparisons that no person judged; a person's word always stands before a machine's",
    "probability": "the machine's own where it gives one, else 1, 0 or 0.5 by its answer",
}
KNOWN_LEFT_OUT = "judgments by people who said that they knew the model do not count"
CHUNK = 1000


def believe_label(counts: Counter[str]) -> tuple[str, float]:
    """(label, its share) of one text's labels under LABEL_RULE; ("", share) where two lead."""
    (label, most), *others = counts.most_common(2)
    share = most / counts.total()
    return ("" if others and others[0][1] == most else label), share


def compared_belief(counts: Counter[str]) -> dict[str, Any]:
    """The fields of a preference about two responses."""
    outcome, probability = believe(counts)
    return {
        "outcome": outcome,
        "probability": probability,
        "n_a": counts[Answer.A],
        "n_b": counts[Answer.B],
        "n_tie": counts[Answer.TIE],
        "n_both_bad": counts[Answer.BOTH_BAD],
    }


def labelled_belief(counts: Counter[str]) -> dict[str, Any]:
    """The fields of a preference about one text."""
    label, share = believe_label(counts)
    return {
        "outcome": Preference.Outcome.LABEL if label else Preference.Outcome.TIE,
        "label": label,
        "label_counts": dict(sorted(counts.items())),
        "probability": share,
    }


def judgment_state(*, project: Project) -> dict[str, int]:
    """Judgments are only ever added, so their number and the newest tell whether any came since.

    A label that was struck off the list changes what its judgments amount to as well.
    """
    judgments = Judgment.objects.filter(comparison__project=project, is_repeat=False)
    state = judgments.aggregate(count=Count("pk"), newest=Coalesce(Max("pk"), 0))
    if project.kind == Project.Kind.LABELS:
        newest = project.guidelines.order_by("-version").values_list("version", flat=True).first()
        state["guidelines"] = newest or 0
    return state


@transaction.atomic
def aggregate_project(
    *, project: Project, judge: JudgeVersion | None = None, leave_out_known: bool = False
) -> Aggregation:
    """One pass over the project's current judgments: a preference for each judged comparison.

    judge: a machine whose judgments stand where no person judged. leave_out_known: what people
    said who knew the model does not count, and the rule says so. Raises NotCalibrated unless an
    admin accepted it for this project.
    """
    # Before the judgments are read: one that comes in between makes this aggregation outdated.
    state = judgment_state(project=project)
    labels = project.kind == Project.Kind.LABELS
    answers, struck_off = answers_that_count(project, leave_out_known=leave_out_known)
    rule = LABEL_RULE if labels else RULE
    if leave_out_known:
        rule = {**rule, "known_model": KNOWN_LEFT_OUT}
    if judge is not None:
        rule = {**rule, "machine": MACHINE_RULE | provenance(judge, project)}
    aggregation = Aggregation.objects.create(
        workspace=project.workspace, project=project, rule=rule, judge=judge
    )
    belief = labelled_belief if labels else compared_belief
    preferences = [
        Preference(
            workspace=project.workspace,
            aggregation=aggregation,
            comparison_id=comparison,
            **belief(Counter(word for _, word in given)),
        )
        for comparison, given in answers.items()
    ]
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
        **{outcome: outcomes[outcome] for outcome in outcomes_of(project)},
        **({"struck_off": struck_off} if labels else {}),
        "agreement": asdict(project_agreement(project=project)),
        "judgment_state": state,
    }
    aggregation.save(update_fields=["summary"])
    return aggregation


def outcomes_of(project: Project) -> list[str]:
    """The outcomes that preferences of this project can have."""
    if project.kind == Project.Kind.LABELS:
        return [Preference.Outcome.LABEL, Preference.Outcome.TIE]
    return [outcome for outcome in Preference.Outcome.values if outcome != Preference.Outcome.LABEL]


def answers_that_count(
    project: Project, *, leave_out_known: bool = False
) -> tuple[dict[int, list[tuple[int, str]]], int]:
    """({comparison: [(judgment, word), …]}, how many name a label that is not on the list)."""
    answers: dict[int, list[tuple[int, str]]] = defaultdict(list)
    judgments = Judgment.objects.current().filter(comparison__project=project).order_by("pk")
    offered = None
    if project.kind == Project.Kind.LABELS:
        offered = {label["name"] for label in current_labels(project)}
    struck_off = 0
    rows = judgments.with_word().values_list("pk", "comparison_id", "word", "details")
    for pk, comparison, word, details in rows:
        if leave_out_known and details.get("known_model"):
            continue
        if offered is not None and word not in offered:
            struck_off += 1
        else:
            answers[comparison].append((pk, word))
    return answers, struck_off


def provenance(judge: JudgeVersion, project: Project) -> dict[str, Any]:
    """Which machine judged, and the calibration that was accepted. Raises NotCalibrated."""
    calibration = require_calibrated(judge=judge, project=project)
    return {
        "judge": f"{judge}",
        "digest": judge.digest,
        "model": model_of(judge),
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
