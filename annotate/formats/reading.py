"""Opening a file of rows: JSON lines, gzipped or not, and Parquet."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from annotate.errors import BadRow, ImportRefused, NotFound
from annotate.formats import hh, pandalm, trl
from annotate.formats.records import PairRecord, Unusable

#: A file may grow to this many bytes when it is decompressed.
MAX_BYTES = 2_000_000_000


class Format(Protocol):
    """What a format module offers."""

    def recognises(self, row: dict[str, Any]) -> bool: ...
    def read(self, row: dict[str, Any], line: int) -> PairRecord: ...


#: In the order in which "auto" asks them.
FORMATS: dict[str, Format] = {"hh": hh, "pandalm": pandalm, "trl": trl}


def read_pairs(path: Path, format: str) -> tuple[list[PairRecord], list[BadRow]]:
    """Every row of a file as a pair or as a bad row. Raises NotFound or ImportRefused."""
    records: list[PairRecord] = []
    bad: list[BadRow] = []
    reader = FORMATS.get(format)
    for line, row in read_rows(path):
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        if reader is None:
            reader = recognise(row, path)
        try:
            records.append(reader.read(row, line))
        except Unusable as reason:
            bad.append(BadRow(line, str(reason)))
    if not records and not bad:
        raise ImportRefused(f"{path} is empty")
    return records, bad


def recognise(row: dict[str, Any], path: Path) -> Format:
    for reader in FORMATS.values():
        if reader.recognises(row):
            return reader
    raise ImportRefused(
        f"{path}: the first row (fields {', '.join(sorted(row)) or 'none'}) is of no known format; "
        f"name one with --format {'|'.join(FORMATS)}"
    )


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """(line number, object or bad row) of a JSON-lines or Parquet file."""
    if not path.exists():
        raise NotFound(f"there is no file {path}")
    if path.is_dir():
        raise ImportRefused(f"{path} is a folder; name a file in it")
    if path.suffix == ".parquet":
        yield from read_parquet(path)
        return
    text = read_text(path)
    # JSON lines end at "\n" alone: U+2028 and its like are legal inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, BadRow(number, f"not JSON ({error.msg} at character {error.pos + 1})")
            continue
        except RecursionError:
            yield number, BadRow(number, "nested too deeply")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            yield number, BadRow(number, f"a JSON object was expected, not {type(row).__name__}")


def read_text(path: Path) -> str:
    """The file's text, decompressed. Raises ImportRefused for what is no UTF-8 text."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as handle:
                data = handle.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as handle:
                data = handle.read(MAX_BYTES + 1)
    except (gzip.BadGzipFile, EOFError) as error:
        raise ImportRefused(f"{path} is not a whole gzip file ({error})") from None
    except OSError as error:
        raise ImportRefused(f"{path} cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise ImportRefused(f"{path} is larger than {MAX_BYTES} bytes; split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImportRefused(
            f"{path} is not UTF-8 text (byte {error.start}); "
            "JSON lines (.jsonl, .jsonl.gz) or Parquet were expected"
        ) from None


def read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
        if (
            sum(
                table.metadata.row_group(index).total_byte_size
                for index in range(table.metadata.num_row_groups)
            )
            > MAX_BYTES
        ):
            raise ImportRefused(f"{path} unpacks to more than {MAX_BYTES} bytes; split it")
        number = 0
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise ImportRefused(f"{path} is not a Parquet file: {error}") from None
