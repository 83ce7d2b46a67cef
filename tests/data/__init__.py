"""Small slices of real data sets; where they come from is in README.md beside this file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
HH = FOLDER / "hh" / "helpful-base.jsonl"
PANDALM = FOLDER / "pandalm" / "testset.jsonl"
SMS = FOLDER / "sms" / "spam.tsv"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def labelled_messages() -> list[dict[str, str]]:
    """The messages of SMS as rows of `classify`."""
    with SMS.open(encoding="utf-8", newline="") as file:
        found = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [{"id": str(number), **row} for number, row in enumerate(found)]


def known_answer(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / "known-answers" / f"{name}.json").read_text(encoding="utf-8"))


def write_rows(path: Path, values: list[Any]) -> Path:
    lines = [value if isinstance(value, str) else json.dumps(value) for value in values]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
