from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotate.errors import ImportRefused, NotFound
from annotate.formats.reading import MAX_LINE_BYTES, Row, read_lines, read_rows

TWO = b'{"a": 1}\n{"a": 2}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def values(path: Path) -> list[Any]:
    return [row.value for row in read_rows(path)]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "no-ending"])
@pytest.mark.parametrize("zipped", [False, True])
def test_json_lines_are_read_by_what_they_are_and_not_by_their_name(
    tmp_path: Path, name: str, zipped: bool
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(TWO) if zipped else TWO)
    assert values(path) == [{"a": 1}, {"a": 2}]


def test_lines_are_split_on_line_feeds_alone(file: Path) -> None:
    text = "one\u2028two\u2029three\x85four\x0bfive\x0csix"
    file.write_text(f'{{"a": "{text}"}}\n'.replace("\x0b", "\\u000b").replace("\x0c", "\\u000c"))
    assert values(file) == [{"a": text}]


def test_a_mark_windows_ends_blank_lines_and_a_missing_end_are_no_obstacle(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert [(row.line, row.value) for row in read_rows(file)] == [(1, {"a": 1}), (3, {"a": 2})]


def test_a_json_list_is_read_item_by_item(file: Path) -> None:
    file.write_text('[\n  {"a": 1},\n  {"a": 2}\n]\n')
    assert [(row.line, row.value) for row in read_rows(file)] == [(1, {"a": 1}), (2, {"a": 2})]


def test_parquet_rows_are_counted_from_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.bin"
    pq.write_table(pa.table({"a": list(range(300))}), path)
    rows = list(read_rows(path))
    assert [row.line for row in rows] == list(range(1, 301))
    assert rows[299].value == {"a": 299}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a": }', "not JSON: Expecting value at character 7"),
        (b'{"a": NaN}', "NaN is not a JSON value"),
        (b'{"a": "caf\xe9"}', "byte 11 (0xe9) is not UTF-8"),
        (b"[" * 20_000, "not JSON that can be read"),
        (b"9" * 5_000, "not JSON that can be read"),
        (b'"' + b"a" * MAX_LINE_BYTES + b'"', "longer than 16,777,216 bytes"),
    ],
    ids=["syntax", "constant", "latin-1", "depth", "digits", "length"],
)
def test_a_broken_line_is_named_and_the_next_is_read(file: Path, line: bytes, problem: str) -> None:
    file.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    rows = list(read_rows(file))
    assert rows[1].line == 2
    assert problem in rows[1].problem
    assert rows[2] == Row(3, {"a": 3})


def test_a_missing_file_is_not_found(file: Path) -> None:
    with pytest.raises(NotFound, match=r"There is no file .*rows\.jsonl"):
        list(read_rows(file))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (gzip.compress(b""), "is empty after decompression"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\n", "is a binary file"),
        ("{}\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (gzip.compress(TWO * 10_000)[:-40], "ends in the middle of its gzip data"),
        (gzip.compress(TWO)[:12] + b"nonsense and more nonsense", "is damaged gzip data"),
        (b"PAR1 and nothing more", "cannot be read as Parquet"),
        (b'[{"a": 1},\n{"a": }]', "begins like a JSON list, but line 2"),
    ],
    ids=["empty", "empty gzip", "binary", "utf-16", "cut", "damaged", "parquet", "list"],
)
def test_a_file_that_is_unusable_as_a_whole_is_refused(
    file: Path, content: bytes, reason: str
) -> None:
    file.write_bytes(content)
    with pytest.raises(ImportRefused, match=reason):
        list(read_rows(file))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="is a folder; name one file in it"):
        list(read_rows(tmp_path))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ImportRefused, match="is not an ordinary file"):
        list(read_rows(pipe))


def test_what_decompresses_to_more_than_allowed_is_refused(file: Path) -> None:
    file.write_bytes(gzip.compress(TWO * 100_000))
    with pytest.raises(ImportRefused, match="holds more than 1,000 bytes after decompression"):
        list(read_rows(file, max_bytes=1_000))


def test_parquet_of_more_than_allowed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": ["x" * 100] * 100}), path)
    with pytest.raises(ImportRefused, match="holds more than 1,000 bytes"):
        list(read_rows(path, max_bytes=1_000))


def test_parquet_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), path)
    with pytest.raises(ImportRefused, match="holds no rows"):
        list(read_rows(path))


def test_plain_text_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("What is red?\n\n  [1] and what is blue?  \n", encoding="utf-8")
    assert list(read_lines(path)) == [Row(1, "What is red?"), Row(3, "[1] and what is blue?")]
