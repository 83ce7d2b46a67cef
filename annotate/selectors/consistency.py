"""Whether people say the same when they see the same again, with the sides swapped."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from annotate.models import Annotator, Answer, Judgment, Project
from annotate.statistics.intervals import wilson


@dataclass(frozen=True)
class Consistency:
    """One person's repeats in one project, or everybody's where `annotator` is None.

    Of `n` repeats `same` got the answer that was given first. `left` and `right` took the same
    place on the screen both times, and so the other response: where the side does not matter,
    mistakes fall on both alike.
    """

    annotator: Annotator | None
    n: int
    same: int
    left: int
    right: int

    @property
    def share(self) -> float | None:
        """Of the same answer; None while nothing was repeated."""
        return self.same / self.n if self.n else None

    @property
    def low(self) -> float:
        return wilson(self.same, self.n)[0]

    @property
    def high(self) -> float:
        return wilson(self.same, self.n)[1]

    @property
    def flips(self) -> int:
        return self.left + self.right

    @property
    def left_share(self) -> float | None:
        """Of those that took the same place twice, the left one; 0.5 is no preference."""
        return self.left / self.flips if self.flips else None

    @property
    def left_low(self) -> float:
        return wilson(self.left, self.flips)[0]

    @property
    def left_high(self) -> float:
        return wilson(self.left, self.flips)[1]


def consistency_of(*, project: Project) -> list[Consistency]:
    """Everybody together first, then each person with a repeat; empty where nobody has one."""
    found = counted(project)
    if not found:
        return []
    people = Annotator.objects.select_related("user").in_bulk(list(found))
    rows = [Consistency(people[pk], *counts) for pk, counts in found.items()]
    rows.sort(key=lambda row: (str(row.annotator), row.annotator.pk if row.annotator else 0))
    total = [sum(column) for column in zip(*found.values(), strict=True)]
    return [Consistency(None, *total), *rows]


def own_consistencies(*, annotator: Annotator) -> list[tuple[Project, Consistency]]:
    """One person's in each project that shows it to its people and repeated anything to them."""
    projects = Project.objects.filter(workspace=annotator.workspace_id, unblinded=True)
    found = ((project, counted(project, annotator)) for project in projects.order_by("name"))
    return [
        (project, Consistency(annotator, *counts[annotator.pk]))
        for project, counts in found
        if counts
    ]


def counted(project: Project, annotator: Annotator | None = None) -> dict[int, list[int]]:
    """{person: [repeats, the same answer, left twice, right twice]}, of judgments that stand."""
    rows = Judgment.objects.standing().filter(comparison__project=project)
    if annotator is not None:
        rows = rows.filter(annotator=annotator)
    rows = rows.filter(comparison__in=rows.filter(is_repeat=True).values("comparison"))
    said: dict[tuple[int, int], dict[bool, tuple[str, bool | None]]] = defaultdict(dict)
    columns = ("annotator_id", "comparison_id", "is_repeat", "word", "swapped")
    for person, comparison, again, word, swapped in rows.with_word().values_list(*columns):
        said[person, comparison][again] = (word, swapped)
    found: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for (person, _), words in said.items():
        if len(words) == 2:
            (first, swapped), (again, _) = words[False], words[True]
            counts = found[person]
            counts[0] += 1
            counts[1] += first == again
            if {first, again} == {Answer.A, Answer.B}:
                counts[2 if (first == Answer.A) != bool(swapped) else 3] += 1
    return dict(found)
