"""Files of single texts that wait for a label: JSON lines, Parquet, CSV and TSV with a header.

A row has `text` (or `prompt`: text or messages), perhaps a `response` to it, and perhaps the label
that its source gives (`label`, or `category`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotate.errors import BadRow, ImportRefused
from annotate.formats.canonical import Messages
from annotate.formats.reading import MAX_ROWS, Row, read_lines, read_rows
from annotate.formats.records import Unusable
from annotate.formats.topics import topics_of
from annotate.formats.trl import as_messages, text

#: Endings of tables, and what parts their cells.
TABLES = {".csv": ",", ".tsv": "\t"}
TEXT_COLUMNS, LABEL_COLUMNS = ("text", "prompt"), ("label", "category")


@dataclass(frozen=True)
class TextRecord:
    """One text as a file gave it: a conversation, the response to it, the label it is known by."""

    line: int
    messages: Messages
    response: str | None = None
    label: str = ""
    topics: list[str] = field(default_factory=list)


def read_texts(path: Path) -> tuple[list[TextRecord], list[BadRow]]:
    """Every text of a file, or why its row is none. Raises NotFound or ImportRefused."""
    records: list[TextRecord] = []
    bad: list[BadRow] = []
    ending = next((e for e in TABLES if path.name.lower().removesuffix(".gz").endswith(e)), None)
    for line, row in read_table(path, TABLES[ending]) if ending else read_rows(path):
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        try:
            records.append(one_text(row, line))
        except Unusable as reason:
            bad.append(BadRow(line, str(reason)))
    return records, bad


def one_text(row: Row, line: int) -> TextRecord:
    """A row as a text. Raises Unusable."""
    given = [name for name in TEXT_COLUMNS if row.get(name) is not None]
    if len(given) != 1:
        what = "both text and prompt are" if given else "neither text nor prompt is"
        raise Unusable(f"{what} there; give one of the two")
    messages = as_messages(row[given[0]], given[0])
    if not any(message["content"].strip() for message in messages):
        raise Unusable(f"{given[0]} is empty, so there is nothing to label")
    response = row.get("response")
    if response is not None:
        response = text(response, "response")
        if messages[-1]["role"] != "user":
            raise Unusable(
                f"a response is there, but {given[0]} does not end with a user's message"
            )
    return TextRecord(line, messages, response, known_label(row), topics_of(row))


def known_label(row: Row) -> str:
    """The label a row brings, as text; empty where it has none. Raises Unusable."""
    for name in LABEL_COLUMNS:
        value = row.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None:
            return text(value, name).strip()
    return ""


def read_table(path: Path, delimiter: str) -> Iterator[tuple[int, Row | BadRow]]:
    """(line a row ends on, its cells by the header's names). Raises ImportRefused."""
    broken: list[BadRow] = []
    reader = csv.reader(lines_of(path, broken), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ImportRefused(f"{path}: its first line cannot be read ({error})") from None
    if not set(header) & set(TEXT_COLUMNS) or len(set(header)) != len(header):
        raise ImportRefused(
            f"{path}: its first line must name each column once, one of them text (or prompt); "
            f"found: {', '.join(header)[:100] or 'nothing'}"
        )
    found = 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # After a quote that is never closed, or a cell beyond csv's limit, no row is certain.
            raise ImportRefused(f"{path}, line {reader.line_num}: {error}") from None
        yield from ((row.line, row) for row in broken)
        broken.clear()
        if cells is None:
            break
        if cells:
            found += 1
            if found > MAX_ROWS:
                raise ImportRefused(f"{path} holds more than {MAX_ROWS:,} rows; split it")
            yield reader.line_num, by_name(header, cells, reader.line_num)
    if not found:
        raise ImportRefused(f"{path} holds no rows")


def by_name(header: list[str], cells: list[str], line: int) -> Row | BadRow:
    if len(cells) != len(header):
        return BadRow(line, f"it has {len(cells)} cells where the header has {len(header)}")
    # An empty cell is one that was not filled in, but for the text itself, which is then refused.
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    return {name: cell for name, cell in row.items() if cell or name in TEXT_COLUMNS}


def lines_of(path: Path, broken: list[BadRow]) -> Iterator[str]:
    """The file's lines; one that is no text leaves an empty line, and its reason in `broken`."""
    for _, line in read_lines(path):
        if isinstance(line, BadRow):
            broken.append(line)
        yield "\n" if isinstance(line, BadRow) else f"{line}\n"
