"""Labels under a glass: by label and by person, against others and against what is known."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from annotate.models import Judgment, Project
from annotate.selectors.quality import names_apart
from annotate.services.aggregation import believe_label
from annotate.services.labels import current_labels
from annotate.statistics.intervals import wilson

#: (text, annotator, label given, known label or "")
Given = tuple[int, int, str, str]


@dataclass(frozen=True)
class Score:
    """How many of n judgments gave the known label."""

    right: int
    n: int

    @property
    def share(self) -> float | None:
        return self.right / self.n if self.n else None

    @property
    def low(self) -> float:
        return wilson(self.right, self.n)[0]

    @property
    def high(self) -> float:
        return wilson(self.right, self.n)[1]


@dataclass(frozen=True)
class LabelRow:
    """One label: how often given, on how many texts the majority, how far others went along."""

    name: str
    judgments: int
    texts: int
    together: float | None
    known: Score


@dataclass(frozen=True)
class PersonRow:
    """One annotator: share of equal answers among all others' on the same texts, and known ones."""

    annotator: str
    judgments: int
    agreement: float | None
    known: Score


@dataclass(frozen=True)
class LabelQuality:
    known: Score
    labels: list[LabelRow]
    people: list[PersonRow]


def label_quality(*, project: Project) -> LabelQuality:
    """What the standing judgments of a project of labels say of labels and people."""
    rows = Judgment.objects.current().filter(comparison__project=project).exclude(label="")
    given: list[Given] = list(
        rows.values_list("comparison_id", "annotator_id", "label", "comparison__known_label")
    )
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for text, _, label, _ in given:
        counts[text][label] += 1
    majority = Counter(believe_label(of_text)[0] for of_text in counts.values())
    offered = [label["name"] for label in current_labels(project)]
    struck_off = sorted({label for _, _, label, _ in given} - set(offered))
    names = names_apart({annotator for _, annotator, _, _ in given})
    people: dict[int, list[Given]] = defaultdict(list)
    for row in given:
        people[row[1]].append(row)
    return LabelQuality(
        known=score(given),
        labels=[
            LabelRow(
                name=label,
                judgments=sum(said == label for _, _, said, _ in given),
                texts=majority[label],
                together=share_of_equal([row for row in given if row[2] == label], counts),
                known=score(row for row in given if row[3] == label),
            )
            for label in [*offered, *struck_off]
        ],
        people=sorted(
            (
                PersonRow(
                    annotator=names[annotator],
                    judgments=len(said),
                    agreement=share_of_equal(said, counts),
                    known=score(said),
                )
                for annotator, said in people.items()
            ),
            key=lambda person: person.annotator,
        ),
    )


def score(given: Iterable[Given]) -> Score:
    """Judgments of texts with a known label, and how many of them gave it."""
    known = [label == truth for _, _, label, truth in given if truth]
    return Score(right=sum(known), n=len(known))


def share_of_equal(given: Iterable[Given], counts: dict[int, Counter[str]]) -> float | None:
    """Of all pairs of one of these judgments and another person's of the same text, the share that
    are equal (the agreement of Fleiss 1971, equation 6, by label or by person); None without any.
    """
    equal = pairs = 0
    for text, _, label, _ in given:
        equal += counts[text][label] - 1
        pairs += counts[text].total() - 1
    return equal / pairs if pairs else None
