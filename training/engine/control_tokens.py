"""Data that spells the control tokens of chat templates, broken up. Holds no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

#: What models read as the borders of turns: a text that spells one must not end there.
CONTROL = re.compile(r"<(?=\|[^<>|\n]{1,60}\|>|/?s>|(?:start|end)_of_turn>)|\[(?=/?INST\])")


def defused(text: str) -> str:
    """The text with a space inside whatever spells a chat template's control token."""
    return CONTROL.sub(lambda found: f"{found.group()} ", text)


def harmless(text: str, special: Sequence[str]) -> str:
    """The text without control tokens: those of well-known templates, and of a base (`special`)."""
    text = defused(text)
    for token in sorted(special, key=len, reverse=True):
        while token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}" if len(token) > 1 else " ")
    return text


def special_tokens(tokenizer: Any) -> list[str]:
    """The texts that a tokenizer reads as one token of its own, such as the end of a turn."""
    added = tokenizer.added_tokens_decoder.values()
    return sorted({token.content for token in added if token.content.strip()})
