"""The versions of a project's guidelines, and what each one changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

from annotate.models import Guideline, Project
from annotate.services.labels import labels_as_text

#: Words up to which a changed passage is compared word by word; longer ones change as a whole.
MAX_WORDS = 400
WORDS = re.compile(r"\s+|[^\s]+")

#: (what became of it: "" kept, "ins" or "del"; the text)
Part = tuple[str, str]


@dataclass(frozen=True)
class Version:
    guideline: Guideline
    #: Against the version before; empty for the first.
    changes: list[Part]


def guideline_versions(*, project: Project) -> list[Version]:
    """Every version, the newest first."""
    rows = list(project.guidelines.order_by("version"))
    texts = [whole_text(row) for row in rows]
    befores: list[str | None] = [None, *texts]
    return [
        Version(row, changes(before, now) if before is not None else [])
        for row, before, now in zip(rows, befores, texts, strict=False)
    ][::-1]


def whole_text(guideline: Guideline) -> str:
    """The guidelines with their labels, as one text."""
    labels = labels_as_text(guideline.labels)
    return "\n\n".join(part for part in (guideline.text, labels) if part)


def changes(before: str, now: str) -> list[Part]:
    """What became of each passage: lines first, and words within lines that were replaced."""
    found: list[Part] = []
    first, second = before.splitlines(keepends=True), now.splitlines(keepends=True)
    for tag, i, j, k, n in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        old, new = "".join(first[i:j]), "".join(second[k:n])
        words = WORDS.findall(old), WORDS.findall(new)
        if tag == "replace" and max(map(len, words)) <= MAX_WORDS:
            found += by_words(*words)
        else:
            found += [("", old)] if tag == "equal" else [("del", old), ("ins", new)]
    return [part for part in found if part[1]]


def by_words(old: list[str], new: list[str]) -> list[Part]:
    found: list[Part] = []
    for tag, i, j, k, n in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            found.append(("", "".join(old[i:j])))
        else:
            found += [("del", "".join(old[i:j])), ("ins", "".join(new[k:n]))]
    return found
