"""A preference file in any format we know: which one it is, its rows sorted into three heaps."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from annotate.errors import BadRow, ImportRefused
from annotate.formats import hh, pandalm, trl
from annotate.formats.reading import Row, read_rows
from annotate.formats.records import ComparisonRecord, RowLeftOut, RowRefused, shown


class Format(Protocol):
    NAME: str
    REFERENCE: str

    def looks_like(self, row: dict[str, Any]) -> bool: ...

    def parse(self, row: dict[str, Any], line: int) -> ComparisonRecord: ...


#: In the order they are tried: HH rows would pass for implicit TRL rows, not the other way round.
FORMATS: dict[str, Format] = {"hh": hh, "pandalm": pandalm, "trl": trl}
_LOOK_AT = 50


@dataclass
class PreferenceFile:
    """The rows of a file: those to import, those refused, those with nothing to compare."""

    format: Format
    records: list[ComparisonRecord] = field(default_factory=list)
    bad_rows: list[BadRow] = field(default_factory=list)
    left_out: list[BadRow] = field(default_factory=list)

    @property
    def n_rows(self) -> int:
        return len(self.records) + len(self.bad_rows) + len(self.left_out)


def read_preferences(path: Path | str, name: str = "auto") -> PreferenceFile:
    rows = read_rows(path)
    first = list(islice(rows, _LOOK_AT))
    if not first:
        raise ImportRefused(f"{path} holds no rows")
    result = PreferenceFile(_format_of(first, path) if name == "auto" else _named(name))
    for row in chain(first, rows):
        try:
            result.records.append(_parsed(row, result.format))
        except RowRefused as error:
            result.bad_rows.append(BadRow(row.line, str(error)))
        except RowLeftOut as error:
            result.left_out.append(BadRow(row.line, str(error)))
    return result


def _named(name: str) -> Format:
    try:
        return FORMATS[name]
    except KeyError:
        known = ", ".join(FORMATS)
        raise ImportRefused(f"there is no format {name!r}; use auto, {known}") from None


def _format_of(rows: list[Row], path: Path | str) -> Format:
    """The format that most of the rows look like."""
    objects = [row.value for row in rows if isinstance(row.value, dict)]
    votes = {name: 0 for name in FORMATS}
    for value in objects:
        for name, known in FORMATS.items():
            if known.looks_like(value):
                votes[name] += 1
                break
    best = max(votes, key=lambda name: votes[name])
    if votes[best]:
        return FORMATS[best]
    if not objects:
        problem = rows[0].problem or f"it is {shown(rows[0].value)}, not an object"
        raise ImportRefused(
            f"{path} is not a preference file: line {rows[0].line}: {problem}. "
            "Expected JSON lines (.jsonl, .jsonl.gz) or Parquet."
        )
    keys = ", ".join(sorted(map(str, objects[0]))[:8]) or "no keys"
    raise ImportRefused(
        f"{path}: cannot tell the format; its first row has {keys}. HH-RLHF rows have chosen and "
        "rejected transcripts; PandaLM rows instruction, response1, response2 and annotator1-3; "
        "TRL rows chosen and rejected, with or without prompt."
    )


def _parsed(row: Row, format: Format) -> ComparisonRecord:
    if row.problem:
        raise RowRefused(row.problem)
    if not isinstance(row.value, dict):
        raise RowRefused(f"not an object but {shown(row.value)}")
    return format.parse(row.value, row.line)
