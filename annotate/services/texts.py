"""The way in for texts that wait for a label, by the same rows and rules as comparisons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from django.db import transaction

from annotate.errors import BadRow, ImportRefused
from annotate.formats.canonical import canonical_json, pair_digest, sha256
from annotate.formats.texts import TextRecord, read_texts
from annotate.models import Comparison, Project, Prompt, Response
from annotate.services.ingest import (
    refuse_or_skip,
    store_comparisons,
    store_origins,
    store_prompts,
    store_responses,
    with_current_overlap,
)
from annotate.services.labels import current_labels, require_kind
from annotate.services.topics import store_topics

REFERENCE = "text"


@dataclass(frozen=True)
class TextsReport:
    """What an import stored, what was there before, what it left out.

    `contradictions` are rows that bring another known label for a text than before: the earlier
    one stands.
    """

    texts_new: int = 0
    texts_seen: int = 0
    known_labels: int = 0
    bad_rows: list[BadRow] = field(default_factory=list)
    contradictions: list[BadRow] = field(default_factory=list)


def import_texts(*, project: Project, path: Path, skip_bad: bool = False) -> TextsReport:
    """Store a file's texts in a project of labels.

    Raises WrongKind, NotFound for a missing file, and ImportRefused, with line numbers, for
    anything it cannot use; a known label must be one of the project's. `skip_bad` leaves such rows
    out. Nothing is half-stored.
    """
    require_kind(project, Project.Kind.LABELS)
    records, bad = read_texts(path)
    good, unknown = with_offered_labels(project, records)
    bad = sorted([*bad, *unknown], key=lambda row: row.line)
    refuse_or_skip(path, bad, good=len(good), skip_bad=skip_bad)
    if not good:
        raise ImportRefused(f"{path} holds no texts")
    return store_texts(project=project, records=good, bad_rows=bad)


def with_offered_labels(
    project: Project, records: Sequence[TextRecord]
) -> tuple[list[TextRecord], list[BadRow]]:
    """(rows whose known label the project has, or none is known; the others as bad rows)."""
    names = [label["name"] for label in current_labels(project)]
    known = {"", *names}
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    unknown = [
        BadRow(record.line, f"label {record.label[:40]!r} is none of the project's ({listed})")
        for record in records
        if record.label not in known
    ]
    return [record for record in records if record.label in known], unknown


@transaction.atomic
def store_texts(
    *, project: Project, records: Sequence[TextRecord], bad_rows: list[BadRow] | None = None
) -> TextsReport:
    """Store read texts; what is there already is left as it is."""
    project = with_current_overlap(project)
    prompts = store_prompts(
        workspace=project.workspace, conversations=[record.messages for record in records]
    )
    keyed = [(prompts[sha256(canonical_json(record.messages))], record) for record in records]
    store_topics(
        workspace=project.workspace, named=[(prompt, record.topics) for prompt, record in keyed]
    )
    answered = [(p, r.response) for p, r in keyed if r.response is not None]
    responses = store_responses(workspace=project.workspace, texts=answered)
    store_origins([(responses[p.pk, sha256(text)], REFERENCE) for p, text in answered])
    wanted: dict[str, Comparison] = {}
    contradictions = []
    for prompt, record in keyed:
        response = None
        if record.response is not None:
            response = responses[prompt.pk, sha256(record.response)]
        unsaved = new_text(project=project, prompt=prompt, response=response, label=record.label)
        first = wanted.setdefault(unsaved.digest, unsaved)
        if record.label and not first.known_label:
            first.known_label = record.label
        elif record.label and record.label != first.known_label:
            contradictions.append(contradiction(record, first.known_label, "in an earlier line"))
    found, new = store_comparisons(project=project, wanted=wanted)
    lines = {text_digest(prompt, record): record for prompt, record in keyed if record.label}
    for digest, record in lines.items():
        before = found[digest].known_label
        if digest not in new and before != wanted[digest].known_label:
            contradictions.append(contradiction(record, before, "in an earlier import"))
    counts = Counter(bool(found[digest].known_label) for digest in new)
    return TextsReport(
        texts_new=len(new),
        texts_seen=len(wanted) - len(new),
        known_labels=counts[True],
        bad_rows=bad_rows or [],
        contradictions=sorted(contradictions, key=lambda row: row.line),
    )


def contradiction(record: TextRecord, before: str, where: str) -> BadRow:
    had = f"the label {before!r}" if before else "no label"
    return BadRow(record.line, f"this text has {had} {where}, and {record.label!r} here")


def text_digest(prompt: Prompt, record: TextRecord) -> str:
    answers = [] if record.response is None else [sha256(record.response)]
    return pair_digest(prompt.digest, answers)


def new_text(
    *, project: Project, prompt: Prompt, response: Response | None, label: str
) -> Comparison:
    """An unsaved row of the queue that holds one text."""
    return Comparison(
        workspace=project.workspace,
        project=project,
        prompt=prompt,
        response_a=response,
        known_label=label,
        digest=pair_digest(prompt.digest, [response.digest] if response else []),
        origin=Comparison.Origin.IMPORT,
        slots=project.overlap,
    )
