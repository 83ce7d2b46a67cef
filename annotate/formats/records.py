"""What a parser makes of one row, and the checks that every text and conversation must pass."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

Message = dict[str, str]
Winner = Literal["first", "second", "tie"]
ROLES = ("system", "user", "assistant")
_SURROGATE = re.compile("[\ud800-\udfff]")


class RowRefused(Exception):
    """Raised when a row is not what its format promises; the text says what is wrong with it."""


class RowLeftOut(Exception):
    """Raised when a sound row holds nothing to compare; the text says why."""


@dataclass(frozen=True)
class ResponseRecord:
    """A response's text and, as far as the file tells, what made it."""

    text: str
    reference: str


@dataclass(frozen=True)
class ComparisonRecord:
    """One row of a preference file: a prompt, two different responses, who preferred which."""

    line: int
    messages: list[Message]
    first: ResponseRecord
    second: ResponseRecord
    judgments: tuple[tuple[str, Winner], ...]


@dataclass(frozen=True)
class PromptRecord:
    line: int
    messages: list[Message]


def checked_text(value: Any, name: str) -> str:
    """`value`, if it is text that UTF-8 and both databases can hold. Empty text is text."""
    if not isinstance(value, str):
        raise RowRefused(f"{name} is not text ({shown(value)})")
    if _SURROGATE.search(value):
        raise RowRefused(f"{name} holds half of a surrogate pair, which is not text in UTF-8")
    if "\0" in value:
        raise RowRefused(f"{name} holds a NUL character, which a database cannot store")
    return value


def checked_messages(value: Any, name: str) -> list[Message]:
    """A list of messages with a known role and text, nothing else in them."""
    if not isinstance(value, list) or not value:
        raise RowRefused(f"{name} is not a list of messages ({shown(value)})")
    messages = []
    for place, message in enumerate(value, start=1):
        where = f"message {place} of {name}"
        if not isinstance(message, dict):
            raise RowRefused(f"{where} is not an object ({shown(message)})")
        if message.get("role") not in ROLES:
            raise RowRefused(
                f"{where} has the role {shown(message.get('role'))}; use one of {', '.join(ROLES)}"
            )
        # Parquet gives every struct all the keys of the column; those without a value say nothing.
        extra = sorted(
            key
            for key, content in message.items()
            if key not in {"role", "content"} and content is not None
        )
        if extra:
            raise RowRefused(f"{where} has {extra[0]!r}, which would be lost; only text is taken")
        content = checked_text(_joined_parts(message.get("content")), f"the content of {where}")
        messages.append({"role": message["role"], "content": content})
    return messages


def checked_prompt(value: Any, name: str = "prompt") -> list[Message]:
    """A conversation that waits for an answer: its last message is the user's."""
    messages = checked_messages(value, name)
    if messages[-1]["role"] != "user":
        raise RowRefused(f"{name} does not end with a user's message, so nothing is asked")
    return messages


def user_says(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def different(first: str, second: str) -> None:
    """Two equal responses leave nothing to choose between."""
    if first == second:
        raise RowLeftOut("the two responses are the same text, so there is nothing to compare")


def shared_beginning(first: str, second: str) -> str:
    """The longest text that both begin with."""
    places = enumerate(zip(first, second, strict=False))
    same = next((at for at, (one, two) in places if one != two), None)
    return min(first, second, key=len) if same is None else first[:same]


def shown(value: Any) -> str:
    """A short look at a wrong value, safe to print."""
    if value is None:
        return "missing"
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "…"


def _joined_parts(content: Any) -> Any:
    """Content given as text parts, `[{"type": "text", "text": …}]`, is that text."""
    if (
        isinstance(content, list)
        and content
        and all(isinstance(part, dict) and part.get("type") == "text" for part in content)
        and all(isinstance(part.get("text"), str) for part in content)
    ):
        return "".join(part["text"] for part in content)
    return content
