"""The labels of a project: what a list may hold, and what was on an annotator's screen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypedDict

from annotate.errors import AnnotateError, WrongKind
from annotate.formats.canonical import text_problem
from annotate.models import Assignment, Guideline, Project

MAX_LABELS = 200
MAX_NAME = 64
MAX_DEFINITION = 1000
#: Keys in the order in which labels without one get theirs: those that send, open or undo are not
#: among them. Labels beyond are chosen by Tab or pointer.
KEYS = "1234567890abcdehijklmnopqrtvwxyz"
#: What projects of each kind hold.
HELD = {
    Project.Kind.COMPARISONS: "two responses",
    Project.Kind.LABELS: "single texts",
    Project.Kind.RANKINGS: "groups of responses",
}
#: One label a line: "name", "name: definition", "name [key]: definition".
LINE = re.compile(r"(?P<name>[^:\[\]]+?)\s*(\[(?P<key>[^\]]*)\])?\s*(:\s*(?P<definition>.*))?")


class Label(TypedDict):
    """One label: its name is its identity over versions."""

    name: str
    definition: str
    key: str


def labels_from_text(text: str) -> list[Label]:
    """Labels written one a line; blank lines say nothing. Raises AnnotateError with the line."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parts = LINE.fullmatch(line.strip())
        if parts is None:
            raise AnnotateError(
                f"labels, line {number}: write “name”, “name: definition” or "
                "“name [key]: definition”"
            )
        found.append(
            Label(
                name=parts["name"],
                definition=(parts["definition"] or "").strip(),
                key=(parts["key"] or "").strip(),
            )
        )
    return found


def labels_as_text(labels: Sequence[Label]) -> str:
    """The inverse of `labels_from_text`."""
    return "\n".join(
        label["name"]
        + (f" [{label['key']}]" if label["key"] else "")
        + (f": {label['definition']}" if label["definition"] else "")
        for label in labels
    )


def checked_labels(*, kind: str, labels: Sequence[Label]) -> list[Label]:
    """The labels with a key each, as they are stored; [] where responses are compared.

    Raises AnnotateError for an unknown kind, WrongKind for labels where none belong, and
    AnnotateError for fewer than two, a name or key twice, and what cannot be shown.
    """
    if kind not in Project.Kind.values:
        raise AnnotateError(f"kind {kind!r} is none of {', '.join(Project.Kind.values)}")
    if kind != Project.Kind.LABELS:
        if labels:
            raise WrongKind(f"a project of kind “{kind}” has no labels; make one of kind “labels”")
        return []
    if not 2 <= len(labels) <= MAX_LABELS:
        raise AnnotateError(
            f"a project of labels needs 2 to {MAX_LABELS} labels; {len(labels)} given"
        )
    for number, label in enumerate(labels, start=1):
        check_label(label, f"label {number}")
    refuse_repeats([label["name"].casefold() for label in labels], "name")
    refuse_repeats([label["key"] for label in labels if label["key"]], "key")
    taken = {label["key"] for label in labels}
    free = iter([key for key in KEYS if key not in taken])
    return [
        Label(
            name=label["name"],
            definition=label["definition"],
            key=label["key"] or next(free, ""),
        )
        for label in labels
    ]


def check_label(label: Label, where: str) -> None:
    """Raise AnnotateError for a label that cannot be shown, typed or exported."""
    name, definition, key = label["name"], label["definition"], label["key"]
    problem = text_problem(name, f"{where}: its name") or text_problem(
        definition, f"{where}: its definition"
    )
    if problem:
        raise AnnotateError(problem)
    if not 1 <= len(name) <= MAX_NAME or name != name.strip():
        raise AnnotateError(
            f"{where}: its name has {len(name)} characters; allowed: 1 to {MAX_NAME}, "
            "no blanks around it"
        )
    if re.search(r"[:\[\]]", name) or not name.isprintable():
        raise AnnotateError(f"{where}: its name holds a colon, a bracket or a control character")
    if len(definition) > MAX_DEFINITION or len(definition.splitlines()) > 1:
        raise AnnotateError(
            f"{where}: its definition is one line of at most {MAX_DEFINITION} characters"
        )
    if (key and key not in KEYS) or len(key) > 1:
        raise AnnotateError(
            f"{where}: its key is {key!r}; use one of {KEYS} (others belong to the screen)"
        )


def refuse_repeats(values: Sequence[str], what: str) -> None:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise AnnotateError(f"two labels have the {what} {twice!r}")


def offered_labels(assignment: Assignment) -> list[Label]:
    """The labels of the version that was on this screen."""
    guideline = assignment.guideline
    return list(guideline.labels) if guideline is not None else []


def current_labels(project: Project) -> list[Label]:
    """The labels in force; [] where responses are compared."""
    newest = Guideline.objects.filter(project=project).order_by("-version").first()
    return list(newest.labels) if newest is not None else []


def require_kind(project: Project, kind: str) -> None:
    """Raise WrongKind unless the project is of that kind."""
    if project.kind != kind:
        raise WrongKind(
            f"project {project.slug} is of kind “{project.kind}”: "
            f"it holds {HELD[Project.Kind(project.kind)]} only"
        )
