"""Opening what people hand us: JSON lines or a JSON list, gzipped or not, and Parquet.

Every row comes out with its number (from 1). What makes a file as a whole unusable raises
ImportRefused. Nothing is trusted: not the ending of the name, not the size before decompression,
not the encoding.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from annotate.errors import BadRow, ImportRefused, NotFound
from annotate.formats import hh, pandalm, trl
from annotate.formats.records import PairRecord, Unusable
from annotate.formats.topics import topics_of

#: A file may grow to this many bytes when it is decompressed, a line to this many, and it may hold
#: this many rows: what is read stays in memory until it is stored as a whole.
MAX_BYTES = 1_000_000_000
MAX_LINE_BYTES = 16_000_000
MAX_ROWS = 1_000_000
#: Rows looked at to recognise a format.
LOOK_AT = 50
UTF8_MARK = b"\xef\xbb\xbf"
Row = dict[str, Any]


class Format(Protocol):
    """What a format module offers."""

    def recognises(self, row: Row) -> bool: ...
    def read(self, row: Row, line: int) -> PairRecord: ...


#: In the order in which "auto" asks them: HH rows would pass for TRL rows.
FORMATS: dict[str, Format] = {"hh": hh, "pandalm": pandalm, "trl": trl}


def read_pairs(path: Path, format: str) -> tuple[list[PairRecord], list[BadRow]]:
    """Every row of a file as a pair or as a bad row. Raises NotFound or ImportRefused."""
    if format != "auto" and format not in FORMATS:
        raise ImportRefused(f"there is no format {format!r}; use auto, {', '.join(FORMATS)}")
    rows = list(read_rows(path))
    reader = FORMATS[format] if format != "auto" else recognise(rows, path)
    records: list[PairRecord] = []
    bad: list[BadRow] = []
    for line, row in rows:
        try:
            if isinstance(row, BadRow):
                bad.append(row)
            else:
                records.append(replace(reader.read(row, line), topics=topics_of(row)))
        except Unusable as reason:
            bad.append(BadRow(line, str(reason)))
    return records, bad


def recognise(rows: list[tuple[int, Row | BadRow]], path: Path) -> Format:
    """The format of the first row that looks like one: a broken first row hides nothing."""
    objects = [row for _, row in rows[:LOOK_AT] if isinstance(row, dict)]
    for row in objects:
        for reader in FORMATS.values():
            if reader.recognises(row):
                return reader
    if not objects:
        raise ImportRefused(
            f"{path} is no file of pairs: {rows[0][1]}. "
            "JSON lines (.jsonl, .jsonl.gz) or Parquet were expected"
        )
    fields = ", ".join(sorted(map(str, objects[0]))[:8]) or "none"
    raise ImportRefused(
        f"{path}: the first row (fields {fields}) is of no known format. HH-RLHF rows have chosen "
        "and rejected transcripts; PandaLM rows instruction, response1, response2 and "
        "annotator1 to 3; TRL rows chosen and rejected, with or without prompt"
    )


def read_rows(
    path: Path, *, max_bytes: int = MAX_BYTES, max_rows: int = MAX_ROWS
) -> Iterator[tuple[int, Row | BadRow]]:
    """(number, object or bad row) of JSON lines, a JSON list or Parquet. Blank lines count."""
    check_path(path)
    found = 0
    for number, row in objects_of(path, max_bytes):
        found += 1
        if found > max_rows:
            raise ImportRefused(f"{path} holds more than {max_rows:,} rows; split it")
        if isinstance(row, dict | BadRow):
            yield number, row
        else:
            kind = type(row).__name__
            yield number, BadRow(number, f"a JSON object was expected, not {kind}")
    if not found:
        raise ImportRefused(f"{path} holds no rows")


def objects_of(path: Path, max_bytes: int) -> Iterator[tuple[int, Any]]:
    """Like read_rows, but of any JSON values."""
    if beginning(path, 4) == b"PAR1":
        yield from read_parquet(path, max_bytes)
        return
    for number, text in read_lines(path, max_bytes=max_bytes):
        if isinstance(text, BadRow):
            yield number, text
        elif number == 1 and text.lstrip().startswith("["):
            yield from list_items(path, max_bytes)
            return
        elif text.strip():
            yield number, parsed(text, number)


def check_path(path: Path) -> None:
    try:
        if path.is_dir():
            raise ImportRefused(f"{path} is a folder; name a file in it")
        if not path.exists():
            raise NotFound(f"there is no file {path}")
        if not path.is_file():
            raise ImportRefused(f"{path} is not an ordinary file")
        if path.stat().st_size == 0:
            raise ImportRefused(f"{path} is empty")
    except (OSError, ValueError) as error:
        raise ImportRefused(f"{path} cannot be read: {error}") from None


def beginning(path: Path, length: int) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(length)
    except OSError as error:
        raise ImportRefused(f"{path} cannot be read: {error.strerror or error}") from None


def read_lines(path: Path, *, max_bytes: int = MAX_BYTES) -> Iterator[tuple[int, str | BadRow]]:
    """Lines, split on "\\n" alone: U+2028 and its like are legal inside a JSON string."""
    check_path(path)
    zipped = beginning(path, 2) == b"\x1f\x8b"
    number = 0
    try:
        with gzip.open(path) if zipped else path.open("rb") as handle:
            check_start(path, handle.peek(8192)[:8192])
            for number, line in enumerate(raw_lines(handle, path, max_bytes), start=1):
                yield number, decoded(line.removeprefix(UTF8_MARK) if number == 1 else line, number)
    except EOFError:
        raise ImportRefused(f"{path} is not a whole gzip file: its end is missing") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ImportRefused(f"{path} is not a whole gzip file ({error})") from None
    except OSError as error:
        raise ImportRefused(f"{path} cannot be read: {error.strerror or error}") from None
    if number == 0:
        raise ImportRefused(f"{path} is empty when it is decompressed")


def raw_lines(
    handle: io.BufferedReader | gzip.GzipFile, path: Path, max_bytes: int
) -> Iterator[bytes]:
    """Lines of MAX_LINE_BYTES and one at most; the rest of a longer one is read and forgotten."""
    total = 0
    whole = True
    while piece := handle.readline(MAX_LINE_BYTES + 1):
        total += len(piece)
        if total > max_bytes:
            raise ImportRefused(
                f"{path} holds more than {max_bytes:,} bytes (decompressed, where it is "
                "compressed); split it"
            )
        if whole:
            yield piece
        whole = piece.endswith(b"\n")


def check_start(path: Path, start: bytes) -> None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ImportRefused(f"{path} is UTF-16 text; save it as UTF-8")
    if b"\0" in start:
        raise ImportRefused(
            f"{path} is a binary file; JSON lines (.jsonl, .jsonl.gz) or Parquet were expected"
        )


def decoded(line: bytes, number: int) -> str | BadRow:
    if len(line) > MAX_LINE_BYTES:
        return BadRow(number, f"the line is longer than {MAX_LINE_BYTES:,} bytes")
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        return BadRow(number, f"not UTF-8 text (byte {error.start + 1} is 0x{byte:02x})")


def parsed(text: str, number: int) -> Any:
    """A line's JSON value, or the bad row that says why it has none."""
    try:
        return from_json(text)
    except json.JSONDecodeError as error:
        return BadRow(number, f"not JSON ({error.msg} at character {error.pos + 1})")
    except RecursionError:
        return BadRow(number, "nested too deeply")
    except ValueError as error:
        return BadRow(number, f"not JSON ({error})")


def from_json(text: str) -> Any:
    """Python would take NaN, and of a field that is there twice the last; neither is JSON to us."""
    return json.loads(text, parse_constant=refuse_constant, object_pairs_hook=each_field_once)


def refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def each_field_once(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {ascii(twice)[:40]} is there twice")
    return row


def list_items(path: Path, max_bytes: int) -> Iterator[tuple[int, Any]]:
    """A file that is one JSON list (PandaLM's own): its items, numbered from 1."""
    text = io.StringIO()
    for number, line in read_lines(path, max_bytes=max_bytes):
        if isinstance(line, BadRow):
            raise ImportRefused(f"{path}, line {number}: {line.reason}")
        text.write(line + "\n")
    try:
        items = from_json(text.getvalue())
    except json.JSONDecodeError as error:
        raise ImportRefused(
            f"{path} begins like a JSON list, but line {error.lineno} is not JSON ({error.msg})"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ImportRefused(f"{path} begins like a JSON list, but is not JSON ({error})") from None
    yield from enumerate(items, start=1)


def read_parquet(path: Path, max_bytes: int) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    number = total = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                total += batch.nbytes
                if total > max_bytes:
                    raise ImportRefused(
                        f"{path} holds more than {max_bytes:,} bytes (decompressed); split it"
                    )
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).strip() or "damaged").splitlines()[0]
        raise ImportRefused(f"{path} cannot be read as Parquet: {reason}") from None
