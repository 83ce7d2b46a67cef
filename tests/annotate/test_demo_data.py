"""The rows we ship: what the demo promises of them holds, and the card names these files."""

from __future__ import annotations

import hashlib
import json

import pytest

from annotate.errors import BadRow
from annotate.formats.preferences import read_preferences
from annotate.formats.prompts import read_prompts
from tests.annotate.export.snapshots import DEMO_DATA

CARD = (DEMO_DATA / "README.md").read_text("utf-8")
FILES = ("pandalm.jsonl.gz", "hh-helpful.jsonl.gz", "fresh-prompts.jsonl.gz")


def asked(messages: list[dict[str, str]]) -> str:
    return json.dumps(messages)


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_those_the_card_names(name: str) -> None:
    digest = hashlib.sha256((DEMO_DATA / name).read_bytes()).hexdigest()
    assert f"{digest}  {name}" in CARD


@pytest.mark.parametrize(
    ("name", "format", "pairs", "prompts"),
    [("pandalm.jsonl.gz", "pandalm", 283, 109), ("hh-helpful.jsonl.gz", "hh", 262, 262)],
)
def test_every_row_is_sound(name: str, format: str, pairs: int, prompts: int) -> None:
    found = read_preferences(DEMO_DATA / name)
    nothing: list[BadRow] = []
    assert (found.format.NAME, found.bad_rows, found.left_out) == (format, nothing, nothing)
    assert len(found.records) == pairs
    assert len({asked(record.messages) for record in found.records}) == prompts


def test_the_fresh_prompts_are_new() -> None:
    fresh = read_prompts(DEMO_DATA / "fresh-prompts.jsonl.gz")
    assert (len(fresh.records), fresh.bad_rows) == (53, [])
    used = {
        record.messages[-1]["content"].strip().lower()
        for name in FILES[:2]
        for record in read_preferences(DEMO_DATA / name).records
    }
    assert not used & {record.messages[-1]["content"].strip().lower() for record in fresh.records}


def test_the_licences_are_beside_the_rows() -> None:
    assert "Apache License" in (DEMO_DATA / "LICENSES" / "Apache-2.0.txt").read_text("utf-8")
    assert "Anthropic" in (DEMO_DATA / "LICENSES" / "MIT-hh-rlhf.txt").read_text("utf-8")
