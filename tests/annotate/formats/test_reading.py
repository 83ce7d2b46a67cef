from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotate.errors import BadRow, ImportRefused, NotFound
from annotate.formats.reading import MAX_LINE_BYTES, read_lines, read_pairs, read_rows
from tests.data import HH, PANDALM, rows, write_rows

TWO = b'{"a": 1}\n{"a": 2}\n'


def zipped(data: bytes) -> bytes:
    """The same bytes in every process: they are part of a test's name."""
    return gzip.compress(data, mtime=0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def values(path: Path) -> list[Any]:
    return [row for _, row in read_rows(path)]


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
    assert list(read_rows(file)) == [(1, {"a": 1}), (3, {"a": 2})]


def test_a_json_list_is_read_item_by_item(file: Path) -> None:
    file.write_text('[\n  {"a": 1},\n  {"a": 2}\n]\n')
    assert list(read_rows(file)) == [(1, {"a": 1}), (2, {"a": 2})]


def test_parquet_rows_are_counted_from_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.bin"
    pq.write_table(pa.table({"a": list(range(300))}), path)
    found = list(read_rows(path))
    assert [line for line, _ in found] == list(range(1, 301))
    assert found[299] == (300, {"a": 299})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a": }', "not JSON (Expecting value at character 7)"),
        (b'{"a": NaN}', "NaN is no JSON value"),
        (b'{"a": "caf\xe9"}', "not UTF-8 text (byte 11 is 0xe9)"),
        (b'{"a":' * 20_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "not JSON (Exceeds the limit"),
        (b'"' + b"a" * MAX_LINE_BYTES + b'"', "longer than 16,000,000 bytes"),
        (b'{"a": 1, "b": 2, "a": 3}', "the field 'a' is there twice"),
        (b"7", "a JSON object was expected, not int"),
        (b"null", "a JSON object was expected, not NoneType"),
    ],
    ids=["syntax", "constant", "latin-1", "depth", "digits", "length", "twice", "7", "null"],
)
def test_a_broken_line_is_named_and_the_next_is_read(file: Path, line: bytes, problem: str) -> None:
    file.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    found = list(read_rows(file))
    assert isinstance(found[1][1], BadRow)
    assert found[1][1].line == 2
    assert problem in found[1][1].reason
    assert found[2] == (3, {"a": 3})


def test_a_missing_file_is_not_found(file: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no file .*rows\.jsonl"):
        list(read_rows(file))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (zipped(b""), "is empty when it is decompressed"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\n", "is a binary file"),
        ("{}\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (
            zipped(TWO * 10_000)[:-40],
            "is not a whole gzip file: its end is missing",
        ),
        (
            zipped(TWO)[:12] + b"nonsense and more nonsense",
            "is not a whole gzip file",
        ),
        (b"PAR1 and nothing more", "cannot be read as Parquet"),
        (b'[{"a": 1},\n{"a": }]', "begins like a JSON list, but line 2 is not JSON"),
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
    with pytest.raises(ImportRefused, match="is a folder; name a file in it"):
        list(read_rows(tmp_path))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ImportRefused, match="is not an ordinary file"):
        list(read_rows(pipe))


def test_what_decompresses_to_more_than_allowed_is_refused(file: Path) -> None:
    file.write_bytes(gzip.compress(TWO * 100_000))
    with pytest.raises(ImportRefused, match=r"holds more than 1,000 bytes \(decompressed"):
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
    assert list(read_lines(path)) == [
        (1, "What is red?"),
        (2, ""),
        (3, "  [1] and what is blue?  "),
    ]


def test_a_bomb_of_one_long_line_is_refused_and_never_held(file: Path) -> None:
    file.write_bytes(gzip.compress(b'{"a": "' + b"a" * 60_000_000 + b'"}\n'))
    assert file.stat().st_size < 100_000
    with pytest.raises(ImportRefused, match="holds more than 50,000,000 bytes"):
        list(read_rows(file, max_bytes=50_000_000))


def test_more_rows_than_a_machine_can_hold_are_refused(file: Path) -> None:
    file.write_bytes(b"{}\n" * 4)
    with pytest.raises(ImportRefused, match="holds more than 3 rows; split it"):
        list(read_rows(file, max_rows=3))


def test_a_texts_own_length_is_no_obstacle(file: Path) -> None:
    long = "a" * 100_000
    write_rows(file, [{"prompt": "q", "chosen": long, "rejected": ""}])
    assert read_pairs(file, "auto")[0][0].first == long


def test_real_rows_are_recognised_and_a_boolean_answer_is_named() -> None:
    assert [len(part) for part in read_pairs(HH, "auto")] == [8, 0]
    records, bad = read_pairs(PANDALM, "auto")
    assert len(records) == 5
    assert [str(row) for row in bad] == ["line 6: response1 is True, not text"]


def test_a_broken_first_row_hides_no_format(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "f.jsonl", ["{broken", 7, *rows(HH)])
    records, bad = read_pairs(path, "auto")
    assert len(records) == 8
    assert [row.line for row in bad] == [1, 2]


def test_a_named_format_is_taken_at_its_word() -> None:
    records, bad = read_pairs(HH, "pandalm")
    assert records == []
    assert bad[0].reason == "instruction is missing, not text"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([{"question": "?", "answer": 1}], r"the first row \(fields answer, question\) is of no"),
        ([{}], r"the first row \(fields none\)"),
        (["hello"], "is no file of pairs: line 1: not JSON"),
        (["7", "8"], "is no file of pairs: line 1: a JSON object was expected, not int"),
    ],
)
def test_what_is_no_file_of_pairs_is_refused(
    tmp_path: Path, content: list[Any], reason: str
) -> None:
    with pytest.raises(ImportRefused, match=reason):
        read_pairs(write_rows(tmp_path / "f.jsonl", content), "auto")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ImportRefused, match="there is no format 'csv'; use auto, hh, pandalm, trl"):
        read_pairs(HH, "csv")


def test_parquet_with_other_columns_is_of_no_known_format(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"question": ["?"], "answer": ["!"]}), path)
    with pytest.raises(ImportRefused, match=r"fields answer, question\) is of no known format"):
        read_pairs(path, "auto")
    records, bad = read_pairs(path, "trl")
    assert (records, str(bad[0])) == ([], "line 1: chosen is missing, not text")
