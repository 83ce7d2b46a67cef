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
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def sha256(text: str) -> str:
    """SHA-256 of text in UTF-8. Raises UnicodeEncodeError for lone surrogates."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def pair_digest(prompt_digest: str, response_digests: Sequence[str]) -> str:
    """The identity of a comparison: its prompt and its two responses, in no order."""
    return sha256("\n".join([prompt_digest, *sorted(response_digests)]))


def text_problem(value: object, name: str) -> str:
    """Why `value` cannot be stored as a text; empty when it can. Empty text is legal."""
    if not isinstance(value, str):
        return f"{name} is {type(value).__name__}, not text"
    if "\x00" in value:
        return f"{name} holds a NUL character"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return f"{name} holds half a surrogate pair, which is not text"
    return ""


def messages_problem(value: object, name: str) -> str:
    """Why `value` is not a conversation `[{role, content}, …]`; empty when it is."""
    if not isinstance(value, list) or not value:
        return f"{name} is not a list of messages"
    for message in value:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return f"{name} holds a message without a role of {', '.join(ROLES)}"
        problem = text_problem(message.get("content"), f"{name} content")
        if problem:
            return problem
    return ""
