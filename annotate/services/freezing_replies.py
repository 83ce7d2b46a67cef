"""The further columns of a snapshot where people were asked more than the answer.

Rows of a project that asks nothing more keep the bytes they always had. Structs name all their
keys in every row, as Parquet does, so that the hash can be taken from what `datasets` reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Q

from annotate.formats.canonical import canonical_json
from annotate.models import Aggregation, Answer, Judgment, Preference

#: Stored with a snapshot that has such columns.
RULE: dict[str, str] = {
    "margin": (
        "the mean over the judgments with a strength, and the ties, of the strength towards chosen "
        "(negative towards rejected) over the most steps a side had; a tie is 0; 0 where the mean "
        "is below or nobody gave one"
    ),
    "judgments": (
        "one object a judgment, in no order that tells who made it: annotator counts within the "
        "row and names nobody; both bad is the choice tie with both_bad true; strength, aspects, "
        "ratings, reasons and spans (in code points, end excluded) as they were given"
    ),
    "rewrites": "answers as people rewrote them, and of which answer of the row",
    "known_model": "judgments by people who knew the model are marked, unless belief left them out",
}


@dataclass(frozen=True)
class Columns:
    """Which further columns the rows of an aggregation have."""

    judgments: bool = False
    margin: bool = False
    rewrites: bool = False

    @property
    def rule(self) -> dict[str, str]:
        if not self.judgments:
            return {}
        kept = ["judgments", "known_model"]
        kept += [name for name in ("margin", "rewrites") if getattr(self, name)]
        return {name: RULE[name] for name in kept}


def columns_of(aggregation: Aggregation) -> Columns:
    """What the judgments behind an aggregation hold beside their answers."""
    behind = Judgment.objects.filter(preferences__aggregation=aggregation)
    if not behind.filter(Q(strength__isnull=False) | ~Q(details={})).exists():
        return Columns()
    return Columns(
        judgments=True,
        margin=behind.filter(strength__isnull=False).exists(),
        rewrites=behind.filter(details__has_key="rewrite").exists(),
    )


def more_of(preference: Preference, columns: Columns) -> dict[str, Any]:
    """The further columns of one row; `preference.judgments` is best prefetched with guidelines."""
    if not columns.judgments:
        return {}
    sides = {"a": "chosen", "b": "rejected", "tie": "tie"}
    if preference.outcome == Preference.Outcome.B:
        sides = {"a": "rejected", "b": "chosen", "tie": "tie"}
    said = list(preference.judgments.all())
    found: dict[str, Any] = {"judgments": numbered(judgment_row(one, sides) for one in said)}
    if columns.margin:
        found["margin"] = round(margin_of(said, sides=sides), 6)
    if columns.rewrites:
        rewrites = [one.details["rewrite"] for one in said if "rewrite" in one.details]
        found["rewrites"] = sorted(
            ({"of": sides[one["of"]], "text": one["text"]} for one in rewrites), key=canonical_json
        )
    return found


def judgment_row(judgment: Judgment, sides: dict[str, str]) -> dict[str, Any]:
    """One judgment by chosen and rejected."""
    details = judgment.details
    return {
        "choice": sides.get(judgment.answer, "tie"),
        "both_bad": judgment.answer == Answer.BOTH_BAD,
        "strength": None if judgment.strength is None else abs(judgment.strength),
        "aspects": [
            {"name": name, "better": sides[better]}
            for name, better in sorted(details.get("aspects", {}).items())
        ],
        "ratings": [
            {"of": sides[side], "name": name, "score": score}
            for side, rated in sorted(details.get("ratings", {}).items())
            for name, score in sorted(rated.items())
        ],
        "reasons": details.get("reasons", []),
        "spans": [
            {
                "of": sides[span["on"]],
                "start": span["start"],
                "end": span["end"],
                "category": span["category"],
            }
            for span in details.get("spans", [])
        ],
        "known_model": bool(details.get("known_model")),
    }


def numbered(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The judgments of one row, ordered by what they say alone."""
    return [
        {"annotator": str(number), **row}
        for number, row in enumerate(sorted(rows, key=canonical_json), start=1)
    ]


def margin_of(judgments: Iterable[Judgment], *, sides: dict[str, str]) -> float:
    """How clearly chosen was preferred, from 0 to 1 (RULE says how)."""
    shares = []
    for judgment in judgments:
        if judgment.answer == Answer.TIE:
            shares.append(0.0)
        elif judgment.strength is not None and judgment.guideline is not None:
            share = abs(judgment.strength) / (judgment.guideline.form["strength"] // 2)
            shares.append(share if sides[judgment.answer] == "chosen" else -share)
    return max(0.0, sum(shares) / len(shares)) if shares else 0.0
