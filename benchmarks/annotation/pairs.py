"""The 2,000 real pairs that are judged: HH-RLHF's, then the demo's of PandaLM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from annotate.formats.reading import read_pairs
from annotate.formats.records import PairRecord

ROOT = Path(__file__).resolve().parents[2]
FILES = (
    ROOT / "benchmarks" / "data" / "hh-helpful-base-1732.jsonl.gz",
    ROOT / "annotate" / "demo_data" / "pandalm.jsonl.gz",
)
PAIRS = 2000


def unanswered_pairs(count: int = PAIRS) -> list[PairRecord]:
    """The first pairs of the files that can be used, without what people said of them."""
    records: list[PairRecord] = []
    for file in FILES:
        good, _ = read_pairs(file, "auto")
        records += [replace(record, judgments=[]) for record in good]
    return records[:count]
