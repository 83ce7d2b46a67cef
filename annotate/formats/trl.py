"""TRL's preference type, standard (text) and conversational (messages), prompt given or implied.

| prompt   | standard                       | conversational                               |
|----------|--------------------------------|----------------------------------------------|
| explicit | prompt, chosen, rejected: text | the same three as lists of messages          |
| implied  | chosen, rejected: whole texts  | chosen, rejected: whole conversations        |

Whole conversations with a prompt beside them (UltraFeedback's way) are taken too. The implied
prompt of a standard row is what both texts share up to the last blank, as TRL's `extract_prompt`
has it.
"""

from __future__ import annotations

from typing import Any

from annotate.formats.canonical import Messages, asks_nothing, messages_problem, text_problem
from annotate.formats.records import PairRecord, SourceJudgment, Unusable, check_different

ANNOTATOR = "import:chosen"
#: Columns of TRL's vision and tool data: what they say would be lost.
NOT_TAKEN = ("image", "images", "tools")


def recognises(row: dict[str, Any]) -> bool:
    return {"chosen", "rejected"} <= set(row)


def read(row: dict[str, Any], line: int) -> PairRecord:
    """One row as a pair. Raises Unusable."""
    for column in NOT_TAKEN:
        if row.get(column):
            raise Unusable(f"it has {column}, which would be lost: only text is taken")
    prompt, chosen, rejected = (row.get(name) for name in ("prompt", "chosen", "rejected"))
    if isinstance(chosen, list) != isinstance(rejected, list):
        raise Unusable("one of chosen and rejected is text, the other a list of messages")
    if isinstance(chosen, list):
        asked, first, second = conversational(prompt, chosen, rejected)
    else:
        asked, first, second = standard(prompt, text(chosen, "chosen"), text(rejected, "rejected"))
    problem = asks_nothing(asked, "prompt")
    if problem:
        raise Unusable(problem)
    check_different(first, second)
    return PairRecord(
        line=line,
        messages=asked,
        first=first,
        second=second,
        judgments=[SourceJudgment(ANNOTATOR, "first")],
        reference="trl",
    )


def standard(prompt: object, chosen: str, rejected: str) -> tuple[Messages, str, str]:
    if prompt is not None:
        return as_messages(prompt, "prompt"), chosen, rejected
    check_different(chosen, rejected)
    shared = shared_beginning(chosen, rejected)
    end = max((place for place, letter in enumerate(shared) if letter.isspace()), default=0)
    if not shared[:end].strip():
        raise Unusable("there is no prompt, and the two texts share no beginning to be one")
    return as_messages(shared[:end], "prompt"), chosen[end:], rejected[end:]


def shared_beginning(first: str, second: str) -> str:
    same = zip(first, second, strict=False)
    end = next((at for at, (one, two) in enumerate(same) if one != two), None)
    return min(first, second, key=len) if end is None else first[:end]


def conversational(prompt: object, chosen: object, rejected: object) -> tuple[Messages, str, str]:
    preferred, other = as_messages(chosen, "chosen"), as_messages(rejected, "rejected")
    asked = as_messages(prompt, "prompt") if prompt is not None else []
    if asked and preferred[: len(asked)] == other[: len(asked)] == asked:
        start = len(asked)
    elif isinstance(prompt, list):
        start = 0
    else:
        # What both share, but never the last message: equal answers would be shared too.
        start, longest = 0, min(len(preferred), len(other)) - 1
        while start < longest and preferred[start] == other[start]:
            start += 1
        while start and preferred[start - 1]["role"] != "user":
            start -= 1
        asked = preferred[:start] or asked
    if not asked:
        raise Unusable("there is no prompt, and the conversations share no user's message")
    return asked, answer(preferred[start:], "chosen"), answer(other[start:], "rejected")


def answer(messages: Messages, side: str) -> str:
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise Unusable(f"after the prompt, {side} is not one message of the assistant")
    return messages[0]["content"]


def text(value: object, name: str) -> str:
    problem = text_problem(value, name)
    if problem:
        raise Unusable(problem)
    return str(value)


def as_messages(value: object, name: str) -> Messages:
    """A text as what a user says, or a list of messages as it is. Raises Unusable."""
    if not isinstance(value, list):
        return [{"role": "user", "content": text(value, name)}]
    problem = messages_problem(value, name)
    if problem:
        raise Unusable(problem)
    return [{"role": message["role"], "content": message["content"]} for message in value]
