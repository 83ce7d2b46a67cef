"""The rows that both sides train on: real HH-RLHF pairs, in the engine's layout."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from annotate.formats import hh

ROOT = Path(__file__).resolve().parents[2]
#: In upstream order, and the demo's own, which are short and of few turns.
FILES = {
    "hh": ROOT / "benchmarks" / "data" / "hh-helpful-base-32.jsonl.gz",
    "short": ROOT / "annotate" / "demo_data" / "hh-helpful.jsonl.gz",
}
PAIRS = 16
CONVERSATIONS = 12


def preference_rows(file: str = "hh", pairs: int = PAIRS) -> list[dict[str, Any]]:
    """The first pairs of a file."""
    lines = gzip.decompress(FILES[file].read_bytes()).decode("utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines[:pairs], start=1):
        record = hh.read(json.loads(line), number)
        rows.append(
            {
                "id": str(number),
                "prompt_id": str(number),
                "prompt": record.messages,
                "chosen": [{"role": "assistant", "content": record.first}],
                "rejected": [{"role": "assistant", "content": record.second}],
            }
        )
    return rows


def prompt_rows(count: int) -> list[dict[str, Any]]:
    """Prompts in file order."""
    return [{key: row[key] for key in ("id", "prompt")} for row in preference_rows(pairs=count)]


def conversation_rows() -> list[dict[str, Any]]:
    """Whole conversations of very different lengths: each prompt with its chosen answer."""
    rows = preference_rows(pairs=CONVERSATIONS)
    return [{"id": row["id"], "messages": row["prompt"] + row["chosen"]} for row in rows]
