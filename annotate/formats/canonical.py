"""The one spelling of JSON that digests are taken over, and the digests of the loop's rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any


def canonical_json(value: Any) -> str:
    """Sorted keys, no blanks, text as it is: the same bytes on every machine and database."""
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def sha256(text: str) -> str:
    """SHA-256 of `text` in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def messages_digest(messages: list[dict[str, str]]) -> str:
    return sha256(canonical_json(messages))


def comparison_digest(prompt: str, responses: Iterable[str]) -> str:
    """Of a prompt's digest and its two responses' digests, whichever comes first."""
    return sha256("\n".join([prompt, *sorted(responses)]))


def lines_digest(lines: Iterable[str]) -> str:
    """SHA-256 over JSON lines, each ended by a line feed."""
    running = hashlib.sha256()
    for line in lines:
        running.update(line.encode())
        running.update(b"\n")
    return running.hexdigest()
