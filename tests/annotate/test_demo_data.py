"""The rows we ship: what the demo promises of them holds, and the card names these files."""

from __future__ import annotations

import hashlib
import json

import pytest

from annotate.formats.prompts import read_prompts
from annotate.formats.reading import read_pairs
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
    records, bad = read_pairs(DEMO_DATA / name, "auto")
    assert read_pairs(DEMO_DATA / name, format) == (records, bad)
    assert (len(records), bad) == (pairs, [])
    assert len({asked(record.messages) for record in records}) == prompts


def test_the_fresh_prompts_are_new() -> None:
    fresh, bad = read_prompts(DEMO_DATA / "fresh-prompts.jsonl.gz")
    assert (len(fresh), bad) == (53, [])
    used = {
        record.messages[-1]["content"].strip().lower()
        for name in FILES[:2]
        for record in read_pairs(DEMO_DATA / name, "auto")[0]
    }
    assert not used & {one.messages[-1]["content"].strip().lower() for one in fresh}


def test_the_licences_are_beside_the_rows() -> None:
    assert "Apache License" in (DEMO_DATA / "LICENSES" / "Apache-2.0.txt").read_text("utf-8")
    assert "Anthropic" in (DEMO_DATA / "LICENSES" / "MIT-hh-rlhf.txt").read_text("utf-8")
