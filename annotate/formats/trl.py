"""TRL's preference type, standard (text) and conversational (messages), prompt given or implied.

| prompt   | standard                                  | conversational                           |
|----------|-------------------------------------------|------------------------------------------|
| explicit | prompt, chosen, rejected: text            | the same three as lists of messages      |
| implicit | chosen, rejected: whole texts             | chosen, rejected: whole conversations    |

A conversation is also taken with a prompt beside it (UltraFeedback's way). An implied prompt of a
standard row is what both texts share, up to the last blank, as TRL's `extract_prompt` does.
"""

from __future__ import annotations

from typing import Any

from annotate.formats.records import (
    ComparisonRecord,
    Message,
    ResponseRecord,
    RowRefused,
    checked_messages,
    checked_prompt,
    checked_text,
    different,
    shared_beginning,
    user_says,
)

NAME = "trl"
REFERENCE = "trl"
ANNOTATOR = "trl:preference"
_Parts = tuple[list[Message], str, str]


def looks_like(row: dict[str, Any]) -> bool:
    return "chosen" in row and "rejected" in row


def parse(row: dict[str, Any], line: int) -> ComparisonRecord:
    for key in ("images", "image", "tools"):
        if row.get(key):
            raise RowRefused(f"it has {key!r}, which would be lost; only text is taken")
    chosen, rejected, prompt = (row.get(key) for key in ("chosen", "rejected", "prompt"))
    if isinstance(chosen, list) != isinstance(rejected, list):
        raise RowRefused("one of chosen and rejected is text, the other a list of messages")
    if isinstance(chosen, list):
        messages, preferred, other = _conversational(prompt, chosen, rejected)
    else:
        texts = checked_text(chosen, "chosen"), checked_text(rejected, "rejected")
        messages, preferred, other = _standard(prompt, *texts)
    different(preferred, other)
    return ComparisonRecord(
        line=line,
        messages=messages,
        first=ResponseRecord(preferred, REFERENCE),
        second=ResponseRecord(other, REFERENCE),
        judgments=((ANNOTATOR, "first"),),
    )


def _standard(prompt: Any, chosen: str, rejected: str) -> _Parts:
    if isinstance(prompt, list):
        return checked_prompt(prompt), chosen, rejected
    if prompt is not None:
        asked = checked_text(prompt, "prompt")
        if not asked.strip():
            raise RowRefused("prompt is empty, so nothing is asked")
        return user_says(asked), chosen, rejected
    different(chosen, rejected)
    shared = shared_beginning(chosen, rejected)
    end = max((place for place, letter in enumerate(shared) if letter.isspace()), default=0)
    if not shared[:end].strip():
        raise RowRefused("there is no prompt and the two texts share no beginning to be one")
    return user_says(shared[:end]), chosen[end:], rejected[end:]


def _conversational(prompt: Any, chosen: Any, rejected: Any) -> _Parts:
    preferred = checked_messages(chosen, "chosen")
    other = checked_messages(rejected, "rejected")
    if isinstance(prompt, list):
        asked = checked_prompt(prompt)
        start = len(asked) if preferred[: len(asked)] == other[: len(asked)] == asked else 0
    else:
        if prompt is not None:
            checked_text(prompt, "prompt")
        # Never the last message: equal conversations share their answers too.
        start, longest = 0, min(len(preferred), len(other)) - 1
        while start < longest and preferred[start] == other[start]:
            start += 1
        while start and preferred[start - 1]["role"] != "user":
            start -= 1
        asked = preferred[:start]
        if not asked and isinstance(prompt, str) and prompt.strip():
            asked = user_says(prompt)
        if not asked:
            raise RowRefused("there is no prompt and the conversations share no user's message")
    return asked, _answer(preferred[start:], "chosen"), _answer(other[start:], "rejected")


def _answer(messages: list[Message], name: str) -> str:
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise RowRefused(f"after the prompt, {name} is not one message of the assistant")
    return messages[0]["content"]
