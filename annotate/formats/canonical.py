"""One way to write JSON and to hash it, so that equal things have equal digests everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

Messages = list[dict[str, str]]
ROLES = ("system", "user", "assistant")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces, and text as it is (UTF-8, not escapes)."""
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def sha256(text: str) -> str:
    """SHA-256 of text in UTF-8. Raises UnicodeEncodeError for lone surrogates."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def pair_digest(prompt_digest: str, response_digests: Sequence[str]) -> str:
    """The identity of a comparison: its prompt and its responses (2, 1 or none), in no order."""
    return sha256("\n".join([prompt_digest, *sorted(response_digests)]))


def text_problem(value: object, name: str) -> str:
    """Why `value` cannot be stored as a text; empty when it can. Empty text is legal."""
    if not isinstance(value, str):
        return f"{name} is {shown(value)}, not text"
    if "\x00" in value:
        return f"{name} holds a NUL character"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return f"{name} holds half a surrogate pair, which is not text"
    return ""


def shown(value: object) -> str:
    """A short look at a wrong value, safe to print."""
    if value is None:
        return "missing"
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def messages_problem(value: object, name: str) -> str:
    """Why `value` is not a conversation `[{role, content}, …]`; empty when it is."""
    if not isinstance(value, list) or not value:
        return f"{name} is {shown(value)}, not a list of messages"
    for place, message in enumerate(value, start=1):
        where = f"message {place} of {name}"
        if not isinstance(message, dict):
            return f"{where} is {shown(message)}, not an object"
        if message.get("role") not in ROLES:
            return f"{where} has the role {shown(message.get('role'))}; use {', '.join(ROLES)}"
        # Parquet gives every struct all keys of the column; those without a value say nothing.
        extra = [key for key in message if key not in ("role", "content") and message[key]]
        if extra:
            return f"{where} has {shown(extra[0])}, which would be lost: only text is taken"
        problem = text_problem(message.get("content"), f"the content of {where}")
        if problem:
            return problem
    return ""


def asks_nothing(messages: Messages, name: str) -> str:
    """Why a conversation does not wait for an answer; empty when it does."""
    if messages[-1]["role"] != "user":
        return f"{name} does not end with a user's message, so nothing is asked"
    if not messages[-1]["content"].strip():
        return f"{name} is empty, so nothing is asked"
    return ""
