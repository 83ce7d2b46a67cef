"""A snapshot as people read it: lengths, sample rows, its rule in sentences."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from statistics import median
from typing import Any

from annotate.models import Project, Snapshot
from annotate.statistics.intervals import wilson

#: Rows measured for the picture. Their order is that of their hashes: the first are a fair draw.
MEASURED = 2000
BINS = 20
#: Rows spelled out on the page.
SHOWN = 5


@dataclass(frozen=True)
class Lengths:
    """How long chosen and rejected responses are, in words, over the same bins."""

    edges: list[int]
    chosen: list[int]
    rejected: list[int]
    median_chosen: float
    median_rejected: float
    longer: int
    n: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """How often the chosen response is the longer one, among pairs of unequal length."""
        return self.longer / self.n if self.n else 0.0

    @property
    def bins(self) -> list[tuple[str, int, int]]:
        """(range of words, chosen, rejected) for the table behind the picture."""
        ends = [*self.edges[1:], None]
        return [
            (f"{start} or more" if end is None else f"{start}–{end - 1}", a, b)
            for start, end, a, b in zip(self.edges, ends, self.chosen, self.rejected, strict=True)
        ]


def snapshot_lengths(*, snapshot: Snapshot) -> Lengths | None:
    """The lengths of the snapshot's first rows; None where no responses are compared."""
    if snapshot.project.kind == Project.Kind.LABELS:
        return None
    rows = snapshot.rows.order_by("position").values_list("content", flat=True)[:MEASURED]
    pairs = [words_of(json.loads(content)) for content in rows.iterator()]
    if not pairs:
        return None
    chosen, rejected = [a for a, _ in pairs], [b for _, b in pairs]
    everything = sorted(chosen + rejected)
    # The last bin takes the longest twentieth, which would otherwise flatten all others.
    reach = everything[min(len(everything) - 1, int(len(everything) * 0.95))]
    width = max(1, math.ceil((reach + 1) / (BINS - 1)))
    longer = sum(a > b for a, b in pairs)
    unequal = sum(a != b for a, b in pairs)
    low, high = wilson(longer, unequal)
    return Lengths(
        edges=[index * width for index in range(BINS)],
        chosen=binned(chosen, width),
        rejected=binned(rejected, width),
        median_chosen=median(chosen),
        median_rejected=median(rejected),
        longer=longer,
        n=unequal,
        low=low,
        high=high,
    )


def words_of(row: dict[str, Any]) -> tuple[int, int]:
    return (
        sum(len(turn["content"].split()) for turn in row["chosen"]),
        sum(len(turn["content"].split()) for turn in row["rejected"]),
    )


def binned(values: list[int], width: int) -> list[int]:
    counts = [0] * BINS
    for value in values:
        counts[min(value // width, BINS - 1)] += 1
    return counts


def sample_rows(*, snapshot: Snapshot) -> list[dict[str, Any]]:
    """A few rows as they are exported."""
    rows = snapshot.rows.order_by("position").values_list("split", "content")[:SHOWN]
    return [{"split": split, **json.loads(content)} for split, content in rows]


def rule_in_words(snapshot: Snapshot) -> list[tuple[str, str]]:
    """(what, rule) sentences of the snapshot's own stored rule."""
    rule, belief = snapshot.rule, snapshot.rule.get("belief", {})
    sentences = [
        ("Rows", rule.get("rows", "")),
        ("Chosen", rule.get("chosen", "")),
        ("Layout", rule.get("layout", "")),
        ("Belief", f"{belief.get('name', '')}: {belief.get('outcome', '')}"),
        ("Probability", belief.get("probability", "")),
        ("Judgments", belief.get("judgments", "")),
        ("Margin", rule.get("margin", "")),
        ("Each judgment", rule.get("judgments", "")),
        ("Rewrites", rule.get("rewrites", "")),
        ("Who knew the model", belief.get("known_model") or rule.get("known_model", "")),
        ("Held out", f"{rule.get('test_fraction', 0):.0%} of prompts, {rule.get('split', '')}"),
        ("SHA-256", rule.get("sha256", "")),
    ]
    return [(what, text) for what, text in sentences if text]
