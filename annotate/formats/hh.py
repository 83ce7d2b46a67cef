"""Anthropic's HH-RLHF: two whole transcripts, `{"chosen": "\\n\\nHuman: …", "rejected": …}`.

Turns start with a blank line and "Human:" or "Assistant:". The prompt is what both texts share
up to the last assistant turn; the responses are what follows it.
"""

from __future__ import annotations

import re
from typing import Any

from annotate.formats.canonical import Messages, text_problem
from annotate.formats.records import PairRecord, SourceJudgment, Unusable

#: One crowd worker judged each pair; which one was not published.
ANNOTATOR = "hh-rlhf:crowd"
TURN = re.compile(r"\n\n(Human|Assistant):")
ROLE = {"Human": "user", "Assistant": "assistant"}


def recognises(row: dict[str, Any]) -> bool:
    chosen = row.get("chosen")
    return isinstance(chosen, str) and chosen.startswith("\n\nHuman:") and "prompt" not in row


def read(row: dict[str, Any], line: int) -> PairRecord:
    """One row as a pair. Raises Unusable for the shapes that are no pair of answers."""
    for side in ("chosen", "rejected"):
        problem = text_problem(row.get(side), side)
        if problem:
            raise Unusable(problem)
    if row["chosen"] == row["rejected"]:
        raise Unusable("the two transcripts are identical")
    chosen, rejected = turns(row["chosen"]), turns(row["rejected"])
    for side, transcript in (("chosen", chosen), ("rejected", rejected)):
        if len(transcript) < 2 or transcript[-1]["role"] != "assistant":
            raise Unusable(f"{side} does not end with an assistant turn")
    if len(chosen) != len(rejected):
        raise Unusable("one transcript is longer: they are not two answers to one prompt")
    if chosen[:-1] != rejected[:-1]:
        raise Unusable("the transcripts differ before the last assistant turn")
    first, second = chosen[-1]["content"], rejected[-1]["content"]
    if first == second:
        raise Unusable("the two answers are the same text")
    return PairRecord(
        line=line,
        messages=chosen[:-1],
        first=first,
        second=second,
        judgments=[SourceJudgment(ANNOTATOR, "first")],
        reference="hh-rlhf",
    )


def turns(transcript: str) -> Messages:
    """The transcript as messages. Text before the first turn makes it unusable."""
    parts = TURN.split(transcript)
    if parts[0].strip():
        raise Unusable('the transcript does not start with "\\n\\nHuman:"')
    return [
        {"role": ROLE[speaker], "content": text.strip()}
        for speaker, text in zip(parts[1::2], parts[2::2], strict=True)
    ]
