r"""Anthropic's HH-RLHF: two whole transcripts, `{"chosen": "\n\nHuman: …", "rejected": …}`.

Turns start with a blank line and "Human:" or "Assistant:"; turns of one side in a row (real rows
have them) are one message. The prompt is what both transcripts share up to the last assistant turn,
never the longest common text: one answer may be the beginning of the other, or empty.
"""

from __future__ import annotations

import re
from typing import Any

from annotate.formats.canonical import Messages, text_problem
from annotate.formats.records import PairRecord, SourceJudgment, Unusable, check_different

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
    chosen, rejected = turns(row["chosen"], "chosen"), turns(row["rejected"], "rejected")
    for side, transcript in (("chosen", chosen), ("rejected", rejected)):
        if transcript[-1]["role"] != "assistant":
            raise Unusable(f"{side} does not end with an assistant turn, so it holds no answer")
    if chosen[:-1] != rejected[:-1]:
        raise Unusable("the transcripts differ before the last assistant turn: two prompts")
    first, second = chosen[-1]["content"], rejected[-1]["content"]
    check_different(first, second)
    return PairRecord(
        line=line,
        messages=chosen[:-1],
        first=first,
        second=second,
        judgments=[SourceJudgment(ANNOTATOR, "first")],
        reference="hh-rlhf",
    )


def turns(transcript: str, side: str) -> Messages:
    """The transcript as messages, which alternate. Raises Unusable for what is none."""
    if not transcript.startswith("\n\nHuman:"):
        raise Unusable(f'{side} is no transcript: it does not begin with a blank line and "Human:"')
    parts = TURN.split(transcript)
    messages: Messages = []
    for speaker, text in zip(parts[1::2], parts[2::2], strict=True):
        role, content = ROLE[speaker], text.strip()
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{content}"
        else:
            messages.append({"role": role, "content": content})
    return messages
