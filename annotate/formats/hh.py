r"""Anthropic HH-RLHF: `{"chosen": transcript, "rejected": transcript}`.

A transcript is a row of turns, each opened by a blank line and "Human:" or "Assistant:". The prompt
is not marked. It is what both transcripts share, cut back to the last "\n\nAssistant:" in it, and
never the longest common text: one transcript may be the beginning of the other, or both answers
may begin alike. What follows is the answer that was judged, to its very end: where the model ran on
into turns of its own making (real rows do), they are part of the answer and not of the prompt.
"""

from __future__ import annotations

import re
from typing import Any

from annotate.formats.records import (
    ComparisonRecord,
    Message,
    ResponseRecord,
    RowRefused,
    checked_text,
    different,
    shared_beginning,
)

NAME = "hh"
REFERENCE = "hh-rlhf"
ANNOTATOR = "hh-rlhf:crowd"
_MARKER = re.compile(r"\n\n(Human|Assistant):")
_ANSWER = "\n\nAssistant:"
_ROLES = {"Human": "user", "Assistant": "assistant"}


def looks_like(row: dict[str, Any]) -> bool:
    return "prompt" not in row and all(
        isinstance(row.get(key), str) and row[key].startswith("\n\nHuman:")
        for key in ("chosen", "rejected")
    )


def parse(row: dict[str, Any], line: int) -> ComparisonRecord:
    chosen = checked_text(row.get("chosen"), "chosen")
    rejected = checked_text(row.get("rejected"), "rejected")
    for name, transcript in (("chosen", chosen), ("rejected", rejected)):
        _check_transcript(transcript, name)
    cut = _prompt_end(chosen, rejected)
    messages = _turns(chosen[:cut])
    preferred, other = (text[cut + len(_ANSWER) :].strip() for text in (chosen, rejected))
    different(preferred, other)
    return ComparisonRecord(
        line=line,
        messages=messages,
        first=ResponseRecord(preferred, REFERENCE),
        second=ResponseRecord(other, REFERENCE),
        judgments=((ANNOTATOR, "first"),),
    )


def _check_transcript(transcript: str, name: str) -> None:
    markers = _MARKER.findall(transcript)
    if not markers or not transcript.startswith("\n\nHuman:"):
        raise RowRefused(
            f'{name} is not a transcript: it does not begin with a blank line and "Human:"'
        )
    if markers[-1] != "Assistant":
        raise RowRefused(f"{name} does not end with an Assistant turn, so it holds no answer")


def _prompt_end(chosen: str, rejected: str) -> int:
    """Where the shared conversation ends and the two answers begin."""
    shared = shared_beginning(chosen, rejected)
    cut = shared.rfind(_ANSWER)
    # An answer to the Human, not the second half of one: step over Assistant turns in a row.
    while cut > 0 and _MARKER.findall(shared[:cut])[-1:] == ["Assistant"]:
        cut = shared.rfind(_ANSWER, 0, cut)
    if cut <= 0:
        raise RowRefused("the transcripts share no Human turn, so they answer different prompts")
    rests = [text[cut:] for text in (chosen, rejected)]
    following = [[found.group() for found in _MARKER.finditer(rest)][1:] for rest in rests]
    if all(following) and following[0][0] == following[1][0] == "\n\nHuman:":
        answers = [rest[: rest.index("\n\nHuman:")] for rest in rests]
        if answers[0] == answers[1]:
            raise RowRefused("the transcripts differ in a Human turn, so their prompts differ")
    return cut


def _turns(prompt: str) -> list[Message]:
    """The turns of a transcript; turns of one side in a row become one message."""
    marks = list(_MARKER.finditer(prompt))
    ends = [mark.start() for mark in marks[1:]] + [len(prompt)]
    messages: list[Message] = []
    for mark, end in zip(marks, ends, strict=True):
        role, content = _ROLES[mark.group(1)], prompt[mark.end() : end].strip()
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{content}"
        else:
            messages.append({"role": role, "content": content})
    return messages
