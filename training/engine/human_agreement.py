"""What people make of held-out pairs: the ceiling for a reward model, and accuracy by bucket.

A row may say who judged it: `judgments`, a list of {"annotator", "choice"} with choice "chosen",
"rejected" or "tie". Two choices agree by 1 where they are the same, by 0 where they are opposite,
and by a half where one is a tie. Inter-annotator agreement compares two people, intra-annotator
agreement two judgments of one person. Every row counts once. Holds no torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

from training.engine.errors import DataError
from training.engine.intervals import share_interval

CHOICES = {"chosen": 1.0, "tie": 0.5, "rejected": 0.0}
#: Upper ends (tokens of the longer response) of the length buckets; the last one is open.
LENGTHS = (16, 64, 256)
Judged = list[tuple[str, float]]


def judged(row: dict[str, Any], where: str) -> Judged:
    """(annotator, choice as a number) of every judgment of a row. Raises DataError."""
    given = row.get("judgments", [])
    good = isinstance(given, list) and all(
        isinstance(each, dict)
        and isinstance(each.get("annotator"), str)
        and each.get("choice") in tuple(CHOICES)
        for each in given
    )
    if not good:
        raise DataError(
            f"{where}: judgments must be a list of {{annotator, choice}}, the choice being "
            f"{', '.join(CHOICES)}"
        )
    return [(each["annotator"], CHOICES[each["choice"]]) for each in given]


def agreement(rows: Sequence[Judged], *, same_person: bool) -> list[float | None]:
    """Mean agreement of each row's pairs of judgments, by one person or by two; None without."""
    found: list[float | None] = []
    for own in rows:
        pairs = [
            1.0 - abs(first - second)
            for (who, first), (other, second) in combinations(own, 2)
            if (who == other) is same_person
        ]
        found.append(sum(pairs) / len(pairs) if pairs else None)
    return found


def estimate(values: Iterable[float | None], clusters: Sequence[str]) -> dict[str, Any] | None:
    """Mean of what is known, which lies from 0 to 1, its interval (`share_interval`) and n; None
    where nothing is known."""
    known = [(v, c) for v, c in zip(values, clusters, strict=True) if v is not None]
    if not known:
        return None
    groups = [cluster for _, cluster in known]
    mean, low, high = share_interval([value for value, _ in known], groups)
    return {"value": mean, "low": low, "high": high, "n": len(known)}


def by_bucket(
    values: Sequence[float], clusters: Sequence[str], buckets: Sequence[Iterable[str]]
) -> dict[str, Any]:
    """`estimate` of the rows in every bucket. buckets: for each row those that it is in."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, names in enumerate(buckets):
        for name in dict.fromkeys(names):
            members[name].append(index)
    return {
        name: estimate([values[i] for i in own], [clusters[i] for i in own])
        for name, own in sorted(members.items(), key=lambda item: in_order(item[0]))
    }


def in_order(name: str) -> tuple[int, str]:
    """Sorts buckets that begin with a number by it."""
    first = name.partition(" ")[0]
    return (int(first) if first.isdecimal() else 0, name)


def against_annotators(
    margins: Sequence[float], rows: Sequence[Judged], clusters: Sequence[str]
) -> dict[str, Any]:
    """Agreement of a model's margins with each annotator's own choices (not with the majority)."""
    said = [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins]
    own: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for value, row, cluster in zip(said, rows, clusters, strict=True):
        for who, choice in row:
            own[who].append((1.0 - abs(value - choice), cluster))
    return {
        who: estimate([value for value, _ in given], [cluster for _, cluster in given])
        for who, given in sorted(own.items())
    }


def length_bucket(tokens: int) -> str:
    """The bucket of a pair whose longer response has so many tokens."""
    least = 1
    for most in LENGTHS:
        if tokens <= most:
            return f"{least} to {most} tokens"
        least = most + 1
    return f"{least} tokens and more"


def agreement_bucket(value: float | None) -> str:
    """The bucket of a row on which its annotators agree so far."""
    if value is None:
        return "judged by one"
    return "all agree" if value == 1.0 else "half or more" if value >= 0.5 else "less than half"
