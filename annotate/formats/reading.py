"""Opening what people hand us: JSON lines, a JSON list, either gzipped, Parquet, plain text.

Every row comes out with its number (from 1) and either its value or what is wrong with it. What
makes the file as a whole unusable raises `ImportRefused`. Nothing is trusted: not the ending of the
name, not the size before decompression, not the encoding.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotate.errors import ImportRefused, NotFound

#: Bytes a file may hold after decompression, and the bytes of one line.
MAX_BYTES = 2 * 1024**3
MAX_LINE_BYTES = 16 * 1024**2
_UTF8_MARK = b"\xef\xbb\xbf"
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"


@dataclass(frozen=True)
class Row:
    """A row by number: its value, or (never both) what is wrong with it."""

    line: int
    value: Any = None
    problem: str = ""


def read_rows(path: Path | str, *, max_bytes: int = MAX_BYTES) -> Iterator[Row]:
    """The JSON values of a file, row by row; blank lines are passed over but counted."""
    path = checked_path(path)
    if _beginning(path, 4) == _PARQUET:
        yield from _parquet_rows(path, max_bytes)
        return
    for number, text in _lines(path, max_bytes):
        if isinstance(text, Row):
            yield text
        elif number == 1 and text.startswith("["):
            yield from _list_items(path, max_bytes)
            return
        elif text.strip():
            yield _json_row(number, text)


def read_lines(path: Path | str, *, max_bytes: int = MAX_BYTES) -> Iterator[Row]:
    """The lines of a plain text file as values; blank lines are passed over but counted."""
    for number, text in _lines(checked_path(path), max_bytes):
        if isinstance(text, Row):
            yield text
        elif text.strip():
            yield Row(number, text.strip())


def checked_path(path: Path | str) -> Path:
    """`path`, if it is an ordinary file that holds something."""
    path = Path(path)
    try:
        if path.is_dir():
            raise ImportRefused(f"{path} is a folder; name one file in it")
        if not path.exists():
            raise NotFound(f"There is no file {path}; check the path.")
        if not path.is_file():
            raise ImportRefused(f"{path} is not an ordinary file")
        if path.stat().st_size == 0:
            raise ImportRefused(f"{path} is empty")
    except (OSError, ValueError) as error:
        raise ImportRefused(f"{path} cannot be looked at: {error}") from error
    return path


def _beginning(path: Path, length: int) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(length)
    except OSError as error:
        raise ImportRefused(f"{path} cannot be opened: {error.strerror}") from error


def _lines(path: Path, max_bytes: int) -> Iterator[tuple[int, str | Row]]:
    """Lines split on line feeds alone (texts hold U+2028 and its like), as text or as a bad row."""
    total = 0
    zipped = _beginning(path, 2) == _GZIP
    try:
        with gzip.open(path) if zipped else path.open("rb") as handle:
            _check_start(path, handle.peek(8192)[:8192])
            for number, line in enumerate(_raw_lines(handle), start=1):
                total += len(line)
                if total > max_bytes:
                    raise ImportRefused(
                        f"{path} holds more than {max_bytes:,} bytes"
                        f"{' after decompression' if zipped else ''}; split it"
                    )
                yield (
                    number,
                    _decoded(number, line.removeprefix(_UTF8_MARK) if number == 1 else line),
                )
    except EOFError as error:
        raise ImportRefused(
            f"{path} ends in the middle of its gzip data; it was cut off, fetch it again"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ImportRefused(f"{path} is damaged gzip data ({error}); fetch it again") from error
    except OSError as error:
        raise ImportRefused(f"{path} cannot be read: {error.strerror or error}") from error
    if total == 0:
        raise ImportRefused(f"{path} is empty after decompression")


def _raw_lines(handle: io.BufferedReader | gzip.GzipFile) -> Iterator[bytes]:
    """Lines of at most `MAX_LINE_BYTES` and a byte, so that a file of one line stays bounded too.

    The rest of a longer line is skipped without being kept; its length alone refuses it.
    """
    while line := handle.readline(MAX_LINE_BYTES + 1):
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = handle.readline(MAX_LINE_BYTES + 1)
            if not line:
                return


def _check_start(path: Path, start: bytes) -> None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ImportRefused(f"{path} is UTF-16 text; save it as UTF-8")
    if b"\0" in start:
        raise ImportRefused(
            f"{path} is a binary file; expected JSON lines (.jsonl, .jsonl.gz) or Parquet"
        )


def _decoded(number: int, line: bytes) -> str | Row:
    if len(line) > MAX_LINE_BYTES:
        return Row(number, problem=f"the line is longer than {MAX_LINE_BYTES:,} bytes")
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        return Row(
            number, problem=f"byte {error.start + 1} (0x{byte:02x}) is not UTF-8; save it as UTF-8"
        )


def _json_row(number: int, text: str) -> Row:
    try:
        return Row(number, _parsed(text))
    except json.JSONDecodeError as error:
        return Row(number, problem=f"not JSON: {error.msg} at character {error.pos + 1}")
    except (ValueError, RecursionError) as error:
        return Row(number, problem=f"not JSON that can be read: {error}")


def _parsed(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _list_items(path: Path, max_bytes: int) -> Iterator[Row]:
    """A file that is one JSON list (PandaLM's own): its items, numbered from 1."""
    text = io.StringIO()
    for number, line in _lines(path, max_bytes):
        if isinstance(line, Row):
            raise ImportRefused(f"{path}, line {number}: {line.problem}")
        text.write(line + "\n")
    try:
        items = _parsed(text.getvalue())
    except json.JSONDecodeError as error:
        raise ImportRefused(
            f"{path} begins like a JSON list, but line {error.lineno}: {error.msg}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ImportRefused(f"{path} is not JSON that can be read: {error}") from error
    for number, item in enumerate(items, start=1):
        yield Row(number, item)


def _parquet_rows(path: Path, max_bytes: int) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = total = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                total += batch.nbytes
                if total > max_bytes:
                    raise ImportRefused(
                        f"{path} holds more than {max_bytes:,} bytes after decompression; split it"
                    )
                for value in batch.to_pylist():
                    number += 1
                    yield Row(number, value)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[:1] or ["damaged"]
        raise ImportRefused(f"{path} cannot be read as Parquet: {reason[0]}") from error
    if number == 0:
        raise ImportRefused(f"{path} holds no rows")
