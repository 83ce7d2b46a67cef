"""Text sets from files: read, bounded, hashed, split; stored as a whole or not at all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from django.db import transaction

from annotate.errors import AnnotateError, BadRow, ImportRefused
from annotate.formats.canonical import sha256
from annotate.formats.reading import MAX_LINE_BYTES, read_lines, read_rows
from annotate.formats.texts import TABLES, read_table
from annotate.services.ingest import refuse_or_skip
from annotate.services.projects import check_slug
from rlhf_platform.accounts.models import Workspace
from training.models import TextDocument, TextSet
from training.services.text_figures import count_texts
from training.services.text_rows import Document, document_problem, one_document

#: Files of one document each; every other file holds rows with a text.
PLAIN = (".txt", ".md", ".rst")
#: What a set may hold: documents are in memory while they are imported.
MAX_DOCUMENTS = 200_000
MAX_BYTES = 200_000_000
CHUNK = 500
#: What a file of each kind looks like.
ROWS: dict[str, str] = {
    TextSet.Kind.DOCUMENTS: "documents are rows with text, and perhaps title and id",
    TextSet.Kind.LABELLED: "labelled texts are rows with text and label",
    TextSet.Kind.QUESTIONS: "questions are JSON lines or Parquet with question and answers (a list "
    "of right ones), fields or label",
    TextSet.Kind.CONVERSATIONS: "conversations are JSON lines or Parquet with messages, of which "
    "the last is the assistant's",
}
#: The share that is held out where nobody says otherwise. Of questions the other half is shown as
#: examples, or trained on.
HELD_OUT: dict[str, float] = {
    TextSet.Kind.DOCUMENTS: 0.1,
    TextSet.Kind.LABELLED: 0.2,
    TextSet.Kind.QUESTIONS: 0.5,
    TextSet.Kind.CONVERSATIONS: 0.1,
}


def import_text_set(
    *,
    workspace: Workspace,
    path: Path,
    name: str,
    kind: str = TextSet.Kind.DOCUMENTS,
    source: str = "",
    licence: str = "",
    test_fraction: float | None = None,
    skip_bad: bool = False,
) -> TextSet:
    """A text set from a file; the set's latest version where the texts are the same.

    Raises NotFound or ImportRefused, with line numbers, for what cannot be used.
    """
    check_kind(kind)
    documents, bad = read_documents(path, kind)
    refuse_or_skip(path, bad, good=len(documents), skip_bad=skip_bad)
    if not documents:
        raise ImportRefused(f"{path} holds no documents with text")
    return store_text_set(
        workspace=workspace,
        documents=documents,
        name=name,
        kind=kind,
        source=source,
        licence=licence,
        test_fraction=test_fraction,
    )


@transaction.atomic
def store_text_set(
    *,
    workspace: Workspace,
    documents: Sequence[Document],
    name: str,
    kind: str = TextSet.Kind.DOCUMENTS,
    source: str = "",
    licence: str = "",
    test_fraction: float | None = None,
) -> TextSet:
    """The set of these texts; equal ones stand once.

    At least one is held out where there are two. Which ones follows from their own hashes: the same
    texts are held out of the next version, but for the last of a label, which is trained on.
    Raises AnnotateError for an impossible name, fraction, size or kind.
    """
    check_slug(name, "text set")
    check_kind(kind)
    share = HELD_OUT[kind] if test_fraction is None else test_fraction
    if not 0.0 <= share <= 0.9:
        raise AnnotateError(f"the held-out share is {share:g}; allowed: 0 to 0.9")
    by_digest = {document.digest: document for document in documents}
    if not by_digest:
        raise AnnotateError("a text set needs a document")
    if len(by_digest) > MAX_DOCUMENTS:
        raise AnnotateError(f"a text set holds at most {MAX_DOCUMENTS:,} documents; split it")
    size = sum(len(document.text.encode()) for document in by_digest.values())
    if size > MAX_BYTES:
        raise AnnotateError(
            f"the texts have {size:,} bytes together; at most {MAX_BYTES:,} make a set: split it"
        )
    refuse_repeated_ids(list(by_digest.values()))
    held_out = set_apart(by_digest, share)
    figures = count_texts(kind, list(by_digest.values()), held_out)
    lines = [f"{digest} {'test' if digest in held_out else 'train'}\n" for digest in by_digest]
    whole = sha256("".join(lines))
    # Two imports into one workspace take turns: they would draw the same version.
    Workspace.objects.select_for_update(no_key=True).get(pk=workspace.pk)
    latest = TextSet.objects.filter(workspace=workspace, name=name).order_by("-version").first()
    if latest is not None and latest.kind != kind:
        raise AnnotateError(
            f"the text set {name!r} holds {latest.get_kind_display().lower()}; give texts of "
            "another kind another name"
        )
    if latest is not None and latest.sha256 == whole:
        return latest
    made = TextSet.objects.create(
        workspace=workspace,
        name=name,
        kind=kind,
        source=source,
        licence=licence,
        figures=figures,
        version=latest.version + 1 if latest else 1,
        sha256=whole,
        n_train=len(by_digest) - len(held_out),
        n_held_out=len(held_out),
        size_bytes=size,
    )
    TextDocument.objects.bulk_create(
        [
            TextDocument(
                text_set=made,
                position=position,
                title=document.title,
                text=document.text,
                held_out=digest in held_out,
                fields=dict(document.fields),
            )
            for position, (digest, document) in enumerate(by_digest.items())
        ],
        batch_size=CHUNK,
    )
    return made


def check_kind(kind: str) -> None:
    if kind not in HELD_OUT:
        raise AnnotateError(f"the kind {kind!r} is none of {', '.join(HELD_OUT)}")


def set_apart(by_digest: dict[str, Document], share: float) -> set[str]:
    """The digests that are held out; a label that nothing would be trained on keeps its last."""
    wanted = min(math.ceil(len(by_digest) * share), len(by_digest) - 1)
    left = Counter(each.fields.get("label") for each in by_digest.values())
    found: set[str] = set()
    for digest in sorted(by_digest):
        label = by_digest[digest].fields.get("label")
        if len(found) < wanted and (label is None or left[label] > 1):
            found.add(digest)
            left[label] -= 1
    return found


def refuse_repeated_ids(documents: Sequence[Document]) -> None:
    """Raise AnnotateError where two different texts have one id: a question could mean either."""
    counted = Counter(each.fields["id"] for each in documents if "id" in each.fields)
    twice = [name for name, count in counted.items() if count > 1]
    if twice:
        raise AnnotateError(
            f"{len(twice)} ids stand at more than one text (first: {twice[0]!r}); give each its own"
        )


def read_documents(
    path: Path, kind: str = TextSet.Kind.DOCUMENTS
) -> tuple[list[Document], list[BadRow]]:
    """Every text of a file, or why its row is none. Raises NotFound or ImportRefused."""
    name = path.name.lower().removesuffix(".gz")
    ending = next((each for each in TABLES if name.endswith(each)), None)
    if name.endswith(PLAIN):
        if kind != TextSet.Kind.DOCUMENTS:
            raise ImportRefused(f"{path} is plain text, which is a document; {ROWS[kind]}")
        return [plain_document(path)], []
    if ending and kind in (TextSet.Kind.QUESTIONS, TextSet.Kind.CONVERSATIONS):
        raise ImportRefused(f"{path} is a table; {ROWS[kind]}")
    rows = read_table(path, TABLES[ending]) if ending else read_rows(path, max_bytes=MAX_BYTES)
    documents: list[Document] = []
    bad: list[BadRow] = []
    for line, row in rows:
        found = row if isinstance(row, BadRow) else one_document(row, line, kind)
        if isinstance(found, BadRow):
            bad.append(found)
        else:
            documents.append(found)
    return documents, bad


def plain_document(path: Path) -> Document:
    """A file that is one document. Raises ImportRefused for what is no UTF-8 text, or empty."""

    def lines() -> Iterator[str]:
        for number, line in read_lines(path, max_bytes=MAX_LINE_BYTES):
            if isinstance(line, BadRow):
                raise ImportRefused(f"{path}, line {number}: {line.reason}; save it as UTF-8")
            yield line

    text = "\n".join(lines())
    problem = document_problem(text)
    if problem:
        raise ImportRefused(f"{path}: {problem}")
    return Document("", text)
