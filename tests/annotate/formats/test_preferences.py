from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annotate.errors import ImportRefused
from annotate.formats.preferences import read_preferences
from tests.data import HH, PANDALM, rows, write_rows

TRL = {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}


def test_real_hh_rows_are_recognised() -> None:
    found = read_preferences(HH)
    assert (found.format.NAME, len(found.records), found.bad_rows) == ("hh", 8, [])


def test_real_pandalm_rows_are_recognised_and_the_boolean_is_named() -> None:
    found = read_preferences(PANDALM)
    assert (found.format.NAME, len(found.records)) == ("pandalm", 5)
    assert [str(row) for row in found.bad_rows] == ["line 6: response1 is not text (True)"]


def test_trl_rows_are_recognised(tmp_path: Path) -> None:
    assert read_preferences(write_rows(tmp_path / "f.jsonl", [TRL])).format.NAME == "trl"


def test_the_format_is_the_one_most_rows_have_even_if_the_first_is_broken(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "f.jsonl", ["{broken", 7, *rows(HH)])
    found = read_preferences(path)
    assert found.format.NAME == "hh"
    assert [row.line for row in found.bad_rows] == [1, 2]
    assert found.bad_rows[1].reason == "not an object but 7"


def test_a_named_format_is_taken_at_its_word() -> None:
    found = read_preferences(HH, "pandalm")
    assert found.records == []
    assert found.bad_rows[0].reason == "instruction is not text (missing)"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([{"question": "?", "answer": 1}], "cannot tell the format; its first row has answer, q"),
        ([{}], "its first row has no keys"),
        (["hello"], "line 1: not JSON"),
        ([[1, 2]], "cannot tell the format|is not a preference file: line 1"),
        (["7", "8"], "line 1: it is 7, not an object"),
    ],
)
def test_what_is_no_preference_file_is_refused(
    tmp_path: Path, content: list[Any], reason: str
) -> None:
    with pytest.raises(ImportRefused, match=reason):
        read_preferences(write_rows(tmp_path / "f.jsonl", content))


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ImportRefused, match="there is no format 'csv'; use auto, hh, pandalm, trl"):
        read_preferences(HH, "csv")
