"""Documents in: JSON rows, or files of text and Markdown, each with a name of its own.

A file with a byte-order mark is read as what the mark says; without one it has to be UTF-8, and
any other encoding is refused with the file's name, since a wrong guess would go unnoticed until
nobody finds anything. Who knows the encoding names it. Holds no torch.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from training.engine.domain import LARGEST_FILE, decoded
from training.engine.errors import DataError
from training.engine.files import REPLACED
from training.engine.rundir import Row, is_text, read_rows

#: What a folder is searched for.
TEXT_SUFFIXES = (".txt", ".text", ".md", ".markdown")
ROW_SUFFIXES = (".jsonl", ".ndjson")
#: Byte-order marks and what follows them; that of UTF-32 begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
HEADING = re.compile(r"^#{1,2}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
LONGEST_NAME = 500


@dataclass(frozen=True)
class Document:
    """A text that can be found. Ids are unique within an index."""

    id: str
    text: str
    title: str = ""

    @property
    def sha256(self) -> str:
        """Of what is found: the id is a name and no content."""
        return hashlib.sha256(f"{self.title}\0{self.text}".encode()).hexdigest()


def documents_of_rows(rows: Sequence[Row], named: str) -> list[Document]:
    """Rows {"id", "text", "title"?}. Raises DataError naming the row."""
    found = []
    for number, row in enumerate(rows, start=1):
        where = f"{named} row {number} ({row.get('id', 'no id')})"
        identity, text, title = row.get("id"), row.get("text"), row.get("title") or ""
        if isinstance(identity, int) and not isinstance(identity, bool):
            identity = str(identity)
        if not is_name(identity):
            raise DataError(
                f"{where}: id is {identity!r}; it must be a text of 1 to {LONGEST_NAME} characters"
            )
        if not is_plain(text):
            raise DataError(f"{where}: text must be a text, not {type(text).__name__}")
        if not is_plain(title):
            raise DataError(f"{where}: title must be a text, not {type(title).__name__}")
        if not text.strip():
            raise DataError(f"{where}: text is empty; leave the row out")
        found.append(Document(identity, text, title))
    return found


def is_plain(value: Any) -> TypeGuard[str]:
    """A NUL is no text to a database."""
    return is_text(value) and "\0" not in value


def is_name(value: Any) -> TypeGuard[str]:
    return is_plain(value) and len(value.strip()) > 0 and len(value) <= LONGEST_NAME


def expect_distinct(documents: Sequence[Document]) -> None:
    """Raise DataError for no document at all, or two of one id."""
    if not documents:
        raise DataError("there are no documents; give at least one with text in it")
    seen: set[str] = set()
    twice = [d.id for d in documents if d.id in seen or seen.add(d.id)]  # type: ignore[func-returns-value]
    if twice:
        raise DataError(
            f"{len(twice)} documents have an id that an earlier one has (first: {twice[0]!r}); an "
            "id names one document: give each its own"
        )


def read_documents(paths: Sequence[Path], *, encoding: str | None = None) -> list[Document]:
    """The documents of files and of folders, searched for text and Markdown.

    Files of rows are .jsonl. A file's id is its path as seen from the folder that was given, or
    its name. encoding: of text files without a byte-order mark, instead of UTF-8.
    Raises DataError naming what cannot be read.
    """
    if encoding is not None:
        expect_encoding(encoding)
    found: list[Document] = []
    for path in paths:
        if path.suffix in ROW_SUFFIXES and path.is_file():
            found += documents_of_rows(read_rows(path), str(path))
            continue
        found += [
            document_of_file(file, name, encoding=encoding) for file, name in text_files(path)
        ]
    expect_distinct(found)
    return found


def text_files(path: Path) -> Iterator[tuple[Path, str]]:
    """(file, its id) of a file, or of a folder's text files in a stable order."""
    if not path.exists():
        raise DataError(f"{path} does not exist; name a file, or a folder of text files")
    if path.is_file():
        yield path, path.name
        return
    inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in TEXT_SUFFIXES)
    files = [each for each in inside if each.is_file()]
    if not files:
        raise DataError(
            f"{path} holds no {', '.join(TEXT_SUFFIXES)} file; there is nothing to find"
        )
    for file in files:
        yield file, file.relative_to(path).as_posix()


def document_of_file(path: Path, name: str, *, encoding: str | None = None) -> Document:
    """A text or Markdown file; of the latter the first heading is the title."""
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise DataError(
                f"{path} has {size / 2**20:,.0f} MB, and a document may have "
                f"{LARGEST_FILE // 2**20}; cut it into parts"
            )
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    text = text_of_bytes(data, str(path), encoding=encoding)
    heading = HEADING.search(text) if path.suffix.lower() in (".md", ".markdown") else None
    return Document(name, text, heading.group(1) if heading else "")


def text_of_bytes(data: bytes, named: str, *, encoding: str | None = None) -> str:
    """Bytes as text with \\n line ends. DataError for what is none, or in another encoding."""
    marked = next((name for mark, name in MARKS if data.startswith(mark)), None)
    chosen = marked or encoding
    if chosen is None:
        try:
            text = decoded(data, named)
        except DataError as error:
            raise DataError(f"{error} (or name its encoding with --encoding)") from None
    else:
        try:
            text = data.decode(chosen)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{named} is not {chosen}: byte {error.start} cannot be read ({error.reason}); "
                "name the encoding that it is in"
            ) from None
        if not text.strip() or "\0" in text or text.count("\ufffd") > REPLACED * len(text):
            raise DataError(
                f"{named} read as {chosen} holds no text (it is empty, or binary); name the "
                "encoding that it is in, or leave it out"
            )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def expect_encoding(name: str) -> None:
    try:
        info = codecs.lookup(name)
    except LookupError:
        raise DataError(
            f"encoding {name!r} is not known; such as utf-8, cp1252, gb18030, cp1256, shift_jis"
        ) from None
    if not info._is_text_encoding:
        raise DataError(f"encoding {name!r} makes no text of bytes; such as cp1252 or gb18030")


def as_rows(documents: Sequence[Document]) -> str:
    """The documents as JSON lines, as `documents_of_rows` reads them."""
    rows = ({"id": each.id, "text": each.text, "title": each.title} for each in documents)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
