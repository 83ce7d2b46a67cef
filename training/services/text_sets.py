"""Raw documents from files: read, bounded, hashed, split; stored as a whole or not at all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction

from annotate.errors import AnnotateError, BadRow, ImportRefused
from annotate.formats.canonical import canonical_json, sha256, text_problem
from annotate.formats.reading import MAX_LINE_BYTES, Row, read_lines, read_rows
from annotate.formats.texts import TABLES, read_table
from annotate.services.ingest import refuse_or_skip
from annotate.services.projects import check_slug
from rlhf_platform.accounts.models import Workspace
from training.engine.domain import REPLACED
from training.models import TextDocument, TextSet

#: Files of one document each; every other file holds rows with a text.
PLAIN = (".txt", ".md", ".rst")
#: What a set may hold: documents are in memory while they are imported.
MAX_DOCUMENTS = 200_000
MAX_BYTES = 200_000_000
MAX_TITLE = 300
CHUNK = 500


@dataclass(frozen=True)
class Document:
    """A document as a file gave it."""

    title: str
    text: str

    @property
    def digest(self) -> str:
        return sha256(canonical_json({"title": self.title, "text": self.text}))


def import_text_set(
    *,
    workspace: Workspace,
    path: Path,
    name: str,
    test_fraction: float = 0.1,
    skip_bad: bool = False,
) -> TextSet:
    """A text set from a file; the set's latest version where the documents are the same.

    Raises NotFound or ImportRefused, with line numbers, for what cannot be used.
    """
    documents, bad = read_documents(path)
    refuse_or_skip(path, bad, good=len(documents), skip_bad=skip_bad)
    if not documents:
        raise ImportRefused(f"{path} holds no documents with text")
    return store_text_set(
        workspace=workspace, documents=documents, name=name, test_fraction=test_fraction
    )


@transaction.atomic
def store_text_set(
    *, workspace: Workspace, documents: Sequence[Document], name: str, test_fraction: float = 0.1
) -> TextSet:
    """The set of these documents; equal ones stand once.

    At least one document is held out where there are two. Which ones follows from their own hashes:
    the same documents are held out of the next version. Raises AnnotateError for an impossible
    name, fraction or size.
    """
    check_slug(name, "text set")
    if not 0.0 <= test_fraction <= 0.9:
        raise AnnotateError(f"the held-out share is {test_fraction:g}; allowed: 0 to 0.9")
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
    wanted = min(math.ceil(len(by_digest) * test_fraction), len(by_digest) - 1)
    held_out = set(sorted(by_digest)[:wanted])
    lines = [f"{digest} {'test' if digest in held_out else 'train'}\n" for digest in by_digest]
    whole = sha256("".join(lines))
    # Two imports into one workspace take turns: they would draw the same version.
    Workspace.objects.select_for_update(no_key=True).get(pk=workspace.pk)
    latest = TextSet.objects.filter(workspace=workspace, name=name).order_by("-version").first()
    if latest is not None and latest.sha256 == whole:
        return latest
    made = TextSet.objects.create(
        workspace=workspace,
        name=name,
        version=latest.version + 1 if latest else 1,
        sha256=whole,
        n_train=len(by_digest) - wanted,
        n_held_out=wanted,
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
            )
            for position, (digest, document) in enumerate(by_digest.items())
        ],
        batch_size=CHUNK,
    )
    return made


def read_documents(path: Path) -> tuple[list[Document], list[BadRow]]:
    """Every document of a file, or why its row is none. Raises NotFound or ImportRefused."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(PLAIN):
        return [plain_document(path)], []
    ending = next((each for each in TABLES if name.endswith(each)), None)
    rows = read_table(path, TABLES[ending]) if ending else read_rows(path, max_bytes=MAX_BYTES)
    documents: list[Document] = []
    bad: list[BadRow] = []
    for line, row in rows:
        found = row if isinstance(row, BadRow) else one_document(row, line)
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


def one_document(row: Row, line: int) -> Document | BadRow:
    """A row with a text and perhaps a title; further fields are left out."""
    title, text = row.get("title") or "", row.get("text")
    problem = text_problem(title, "title") or text_problem(text, "text") or document_problem(text)
    if problem:
        return BadRow(line, problem)
    return Document(str(title).strip()[:MAX_TITLE], str(text))


def document_problem(text: object) -> str:
    """Why a text is no document; empty where it is one."""
    words = str(text)
    if not words.strip():
        return "text is empty"
    if words.count("\ufffd") / len(words) > REPLACED:
        return "text was read in a wrong encoding before (U+FFFD); go back to its source"
    return text_problem(words, "text")
