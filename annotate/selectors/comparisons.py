"""Comparisons as a list to browse, and one with everything that was said about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from django.db.models import Count, QuerySet

from annotate.models import (
    Answer,
    Candidate,
    Comparison,
    Judgment,
    Preference,
    Project,
    SnapshotRow,
)
from annotate.services.aggregation import believe_label
from annotate.statistics.belief import believe

FILTERS = {
    "all": "All",
    "open": "Open",
    "complete": "Complete",
    "disagreement": "Disagreement",
    "reserved": "Reserved",
}


def browse_comparisons(*, project: Project, show: str, topic: str = "") -> QuerySet[Comparison]:
    """The project's comparisons in one of FILTERS (of one topic), the newest first."""
    found = Comparison.objects.filter(project=project).select_related(
        "prompt", "reserved_for__user"
    )
    found = found.prefetch_related("prompt__topics")
    if topic:
        found = found.filter(prompt__topics__name=topic)
    if show == "reserved":
        found = found.exclude(reserved_for=None)
    elif show == "open":
        found = found.filter(slots__gt=0)
    elif show == "complete":
        found = found.filter(slots=0)
    elif show == "disagreement":
        split = (
            Judgment.objects.current()
            .filter(comparison__project=project)
            .with_word()
            .values("comparison")
            .annotate(answers=Count("word", distinct=True))
            .filter(answers__gt=1)
            .values("comparison")
        )
        return found.filter(pk__in=split).order_by("-pk")
    # Of a ranking the group is listed; its pairs are on its page.
    return found.filter(group=None).order_by("-pk")


@dataclass(frozen=True)
class Browsed:
    """A comparison with what its standing judgments amount to now."""

    comparison: Comparison
    counts: Counter[str]
    outcome: str

    @property
    def judgments(self) -> int:
        return sum(self.counts.values())

    @property
    def by_word(self) -> list[tuple[str, int]]:
        """What was said how often, the most frequent first."""
        return self.counts.most_common()


def with_outcomes(comparisons: Sequence[Comparison]) -> list[Browsed]:
    """The comparisons of one page, each with its counts, in one query."""
    rows = (
        Judgment.objects.current()
        .filter(comparison__in=[comparison.pk for comparison in comparisons])
        .with_word()
        .values_list("comparison_id", "word")
        .annotate(n=Count("pk"))
    )
    counts: dict[int, Counter[str]] = {comparison.pk: Counter() for comparison in comparisons}
    for comparison, answer, n in rows:
        counts[comparison][answer] += n
    groups = [comparison.pk for comparison in comparisons if comparison.response_a_id is None]
    if groups:
        ranked = Judgment.objects.current().filter(comparison__in=groups, answer=Answer.RANKING)
        for group, n in ranked.values_list("comparison_id").annotate(n=Count("pk")):
            counts[group][Answer.RANKING] = n
    return [
        Browsed(comparison, counts[comparison.pk], outcome_of(comparison, counts[comparison.pk]))
        for comparison in comparisons
    ]


def outcome_of(comparison: Comparison, counts: Counter[str]) -> str:
    """The outcome in words under the rule that freezes; empty before the first judgment."""
    if not counts:
        return ""
    if Answer.RANKING in counts:
        return "Ranked"
    if comparison.response_b_id is None:
        return believe_label(counts)[0] or str(Preference.Outcome.TIE.label)
    return str(Preference.Outcome(believe(counts)[0]).label)


@dataclass(frozen=True)
class Taught:
    """A snapshot that holds the comparison, and the versions trained on it."""

    row: SnapshotRow
    versions: list[object]


@dataclass(frozen=True)
class ComparisonStory:
    comparison: Comparison
    judgments: list[Judgment]
    counts: Counter[str]
    outcome: str
    taught: list[Taught]
    #: Of a ranking: its responses, and its pairs with what they amount to.
    candidates: list[Candidate] = field(default_factory=list)
    pairs: list[Browsed] = field(default_factory=list)

    @property
    def by_word(self) -> list[tuple[str, int]]:
        """What was said how often, the most frequent first."""
        return self.counts.most_common()

    @property
    def conversation(self) -> list[dict[str, str]]:
        """What comes before two responses, or the whole text."""
        compared = self.comparison.response_b is not None
        return list(self.comparison.prompt.messages) if compared else self.comparison.conversation

    @property
    def n(self) -> int:
        """Judgments that stand."""
        return sum(self.counts.values())


def comparison_story(comparison: Comparison) -> ComparisonStory:
    """Every judgment ever made (superseded ones too), and where the belief went from there."""
    judgments = list(
        comparison.judgments.select_related(
            "annotator__user", "guideline", "superseded_by"
        ).order_by("pk")
    )
    standing = Counter(
        j.label or j.answer
        for j in judgments
        if j.answer != Answer.WITHDRAWN and not j.is_repeat and not hasattr(j, "superseded_by")
    )
    rows = (
        SnapshotRow.objects.filter(preference__comparison=comparison)
        .select_related("snapshot", "preference")
        .prefetch_related("snapshot__rounds__reward_version", "snapshot__rounds__policy_version")
        .order_by("snapshot__number")
    )
    candidates = [] if comparison.response_a_id else candidates_of(comparison)
    pairs = comparison.pairs.order_by("pk") if candidates else []
    return ComparisonStory(
        candidates=candidates,
        pairs=with_outcomes(list(pairs)),
        comparison=comparison,
        judgments=judgments,
        counts=standing,
        outcome=outcome_of(comparison, standing),
        taught=[Taught(row, versions_of(row)) for row in rows],
    )


def candidates_of(comparison: Comparison) -> list[Candidate]:
    rows = comparison.candidates.select_related("response")
    return list(rows.prefetch_related("response__origins"))


def versions_of(row: SnapshotRow) -> list[object]:
    """The versions whose rounds trained on the row's snapshot; only its train rows taught them."""
    if row.split != SnapshotRow.Split.TRAIN:
        return []
    made = (
        version
        for round in row.snapshot.rounds.all()
        for version in (round.reward_version, round.policy_version)
    )
    return list({version.pk: version for version in made if version is not None}.values())
