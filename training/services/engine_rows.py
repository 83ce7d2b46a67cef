"""Rows for the engine: a snapshot's rows and what their judgments say beside them.

The snapshot itself stays as it was hashed. Weight, margin and ties are derived from the judgments
of its aggregation, which never change either, so the same snapshot always gives the same rows.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from annotate.models import Annotator, Answer, Judgment, Preference, Snapshot, SnapshotRow
from annotate.services.freezing import in_test, row_content
from annotate.statistics.reliability import relative_reliability

COMPARED = (Answer.A, Answer.B, Answer.TIE)
#: An answer as the engine's evaluation reads it (`human_agreement`), by the row's outcome.
CHOICES = {
    "a": {"a": "chosen", "b": "rejected", "tie": "tie"},
    "b": {"b": "chosen", "a": "rejected", "tie": "tie"},
}


def preference_lines(*, snapshot: Snapshot, ties: bool) -> list[str]:
    """The training rows of a snapshot as JSON lines; `ties` adds those that it left out as ties."""
    weights = row_weights(snapshot)
    rows = snapshot.rows.filter(split=SnapshotRow.Split.TRAIN).select_related("preference")
    lines = [
        told(json.loads(row.content), row.preference, weights)
        for row in rows.order_by("position").iterator(chunk_size=2000)
    ]
    if ties:
        lines += [told(content, preference, weights) for content, preference in tie_rows(snapshot)]
    return lines


def told(content: dict[str, Any], preference: Preference, weights: dict[int, float]) -> str:
    """A row with weight, margin and tie (docs/reference/run-directory.md).

    The margin is how far the votes lead, of n with two more supposed of which each side has one:
    1/3 for a single vote, 3/5 for three of three. What a machine judged counts as one vote of
    weight 1, the mean of people's reliabilities.
    """
    n_a, n_b, n_tie, weight = votes_of(preference, weights)
    n = n_a + n_b + n_tie
    row = {**content, "weight": round(weight, 6)}
    if preference.outcome == Preference.Outcome.TIE or n_tie:
        row["tie"] = round(n_tie / n, 6)
    if preference.outcome != Preference.Outcome.TIE:
        row["margin"] = round(abs(n_a - n_b) / (n + 2), 6)
    return json.dumps(row, ensure_ascii=False)


def held_out_lines(*, snapshot: Snapshot) -> list[str]:
    """The held-out rows of a snapshot, each with the people's judgments that it rests on, and what
    the same people say of it by now where they were shown it once more.

    Annotators are pseudonyms. Who said "both bad" compared nothing, and models are no people.
    """
    evidence = (
        Preference.judgments.through.objects.filter(
            preference__snapshot_rows__snapshot=snapshot,
            preference__snapshot_rows__split=SnapshotRow.Split.TEST,
            judgment__answer__in=COMPARED,
        )
        .exclude(judgment__annotator__kind=Annotator.Kind.MODEL)
        .select_related("judgment__annotator")
    )
    given: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for each in evidence.order_by("judgment_id").iterator(chunk_size=2000):
        said = each.judgment
        given[each.preference_id].append((said.annotator.pseudonym, said.answer))
    again: dict[int, list[tuple[str, str]]] = defaultdict(list)
    repeats = Judgment.objects.standing().filter(
        is_repeat=True,
        comparison__preferences__snapshot_rows__snapshot=snapshot,
        comparison__preferences__snapshot_rows__split=SnapshotRow.Split.TEST,
        answer__in=COMPARED,
    )
    for said in repeats.select_related("annotator").order_by("pk").iterator(chunk_size=2000):
        again[said.comparison_id].append((said.annotator.pseudonym, said.answer))
    rows = snapshot.rows.filter(split=SnapshotRow.Split.TEST).select_related("preference")
    lines = []
    for row in rows.order_by("position").iterator(chunk_size=2000):
        choices = CHOICES[row.preference.outcome]
        judgments = [
            {"annotator": who, "choice": choices[answer]}
            for who, answer in given[row.preference_id] + again[row.preference.comparison_id]
        ]
        content = {**json.loads(row.content), "judgments": judgments}
        lines.append(json.dumps(content, ensure_ascii=False))
    return lines


def votes_of(preference: Preference, weights: dict[int, float]) -> tuple[int, int, int, float]:
    """(votes for A, for B, for a tie, what they weigh together)."""
    if preference.machine_judgment_id is None:
        return preference.n_a, preference.n_b, preference.n_tie, weights[preference.pk]
    said = preference.outcome
    return int(said == "a"), int(said == "b"), int(said == "tie"), 1.0


def row_weights(snapshot: Snapshot) -> dict[int, float]:
    """By preference, the sum of its judges' reliabilities: what its judgments count for together.

    Who said "both bad" compared nothing, and adds nothing.
    """
    evidence = Preference.judgments.through.objects.filter(
        preference__aggregation=snapshot.aggregation_id
    )
    given = list(
        evidence.order_by("preference_id", "judgment_id").values_list(
            "preference_id", "judgment__annotator_id", "judgment__answer"
        )
    )
    trust = relative_reliability([(person, unit, answer) for unit, person, answer in given])
    weights: dict[int, float] = defaultdict(float)
    for unit, person, answer in given:
        if answer in COMPARED:
            weights[unit] += trust[person]
    return weights


def tie_rows(snapshot: Snapshot) -> list[tuple[dict[str, Any], Preference]]:
    """Comparisons that a snapshot left out as ties and whose prompts are not held out.

    Which side is named chosen means nothing.
    """
    salt, fraction = snapshot.rule["salt"], snapshot.rule["test_fraction"]
    preferences = snapshot.aggregation.preferences.filter(
        outcome=Preference.Outcome.TIE
    ).select_related(
        "comparison__prompt",
        "comparison__response_a",
        "comparison__response_b",
        "machine_judgment__judge",
    )
    found = []
    for preference in preferences.iterator(chunk_size=2000):
        pair = preference.comparison
        sides = pair.pair
        if not any(side.text.strip() for side in sides) or in_test(
            pair.prompt.digest, salt=salt, test_fraction=fraction
        ):
            continue
        found.append((row_content(preference, pair.prompt, *sides), preference))
    return sorted(found, key=lambda row: str(row[0]["id"]))
