"""Reading text sets: what was counted of one, what it holds, and which runs read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet

from training.models import Run, TextDocument, TextSet


@dataclass(frozen=True)
class LabelCount:
    """A label with its texts."""

    name: str
    n_train: int
    n_held_out: int

    @property
    def n(self) -> int:
        return self.n_train + self.n_held_out


def label_counts(text_set: TextSet) -> list[LabelCount]:
    """Of every label, the most frequent first; nothing where texts have none."""
    found = text_set.figures.get("labels", {})
    counts = [LabelCount(name, *counted) for name, counted in found.items()]
    # The database keeps no order of an object's keys.
    return sorted(counts, key=lambda each: (-each.n, each.name))


def shares(counted: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counted.items(), key=lambda each: (-each[1], each[0]))


def texts_of(text_set: TextSet, *, show: str = "", label: str = "") -> QuerySet[TextDocument]:
    """show: train or held_out for one side alone. label: of labelled texts, those that have it."""
    found = text_set.documents.all()
    if show in ("train", "held_out"):
        found = found.filter(held_out=show == "held_out")
    return found.filter(fields__label=label) if label else found


def runs_reading(text_set: TextSet) -> QuerySet[Run]:
    """Runs that learn from it, are measured on it or look things up in it, the newest first."""
    found = Run.objects.filter(Q(text_set=text_set) | Q(documents=text_set))
    return found.select_related("job", "version").order_by("-pk")


def gold_of(document: TextDocument) -> list[tuple[str, str]]:
    """What is right of a question or a labelled text, as (what it is, its words)."""
    fields: dict[str, Any] = document.fields
    found = [("label", str(fields["label"]))] if "label" in fields else []
    found += [("answer", str(each)) for each in fields.get("answers", ())]
    found += [(str(name), str(value)) for name, value in fields.get("fields", {}).items()]
    return found + [("document", str(each)) for each in fields.get("documents", ())]
