"""Rows of text to rows of tokens. Lengths are carried explicitly from here on.

Masks are never inferred from a pad id: on many chat models the pad token is the token that ends a
turn. A response ends with that token, so "stop here" is learnt, scored and sampled alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.engine.config import DataConfig
from training.engine.errors import DataError
from training.engine.models import Base
from training.engine.rundir import EventWriter, Row


@dataclass(frozen=True)
class Branch:
    """Tokens that follow a prompt. `scored` marks those that count; None means all of them."""

    tokens: tuple[int, ...]
    scored: tuple[bool, ...] | None = None


@dataclass(frozen=True)
class Tree:
    """A prompt and the branches that share it: (chosen, rejected), samples, or one conversation."""

    prompt: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(len(branch.tokens) for branch in self.branches)


@dataclass(frozen=True)
class Pair:
    """One preference: its tree is (prompt; chosen, rejected)."""

    prompt_id: str
    tree: Tree
    probability: float


@dataclass
class Encoded:
    """What encoding left out or cut, counted."""

    kept: int = 0
    too_long: list[str] = field(default_factory=list)
    cut: int = 0

    def report(self, events: EventWriter, what: str) -> None:
        if self.too_long:
            events.warning(
                "prompt_too_long",
                f"{len(self.too_long)} {what} rows left out: their prompts exceed "
                f"data.max_prompt_length (first: {self.too_long[0]})",
            )
        if self.cut:
            events.warning("cut", f"{self.cut} {what} responses cut at data.max_length")


def require_messages(value: Any, where: str) -> list[dict[str, str]]:
    """A list of {"role", "content"} with text contents, or a DataError."""
    good = isinstance(value, list) and all(
        isinstance(message, dict)
        and isinstance(message.get("content"), str)
        and message.get("role") in ("system", "user", "assistant")
        for message in value
    )
    if not good or not value:
        raise DataError(f"{where} must be a list of {{role, content}} messages with text contents")
    return list(value)


def prompt_tokens(base: Base, messages: list[dict[str, str]]) -> tuple[int, ...]:
    """A conversation up to where the assistant's answer begins."""
    text = base.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tuple(base.tokenizer(text, add_special_tokens=False)["input_ids"])


def response_tokens(base: Base, text: str) -> tuple[int, ...]:
    """A finished answer: its tokens and the token that ends the turn."""
    return (*base.tokenizer(text, add_special_tokens=False)["input_ids"], base.eos_id)


def encode_pairs(
    base: Base, rows: Sequence[Row], config: DataConfig, events: EventWriter, what: str
) -> list[Pair]:
    """Preference rows as trees. Raises DataError for a wrong row or when none is left."""
    pairs, seen = [], Encoded()
    for number, row in enumerate(rows, start=1):
        where = f"{what} row {number} ({row.get('id', 'no id')})"
        prompt = prompt_tokens(base, require_messages(row.get("prompt"), f"{where}: prompt"))
        if len(prompt) > config.max_prompt_length:
            seen.too_long.append(str(row.get("id", number)))
            continue
        room = config.max_length - len(prompt)
        branches = []
        for side in ("chosen", "rejected"):
            messages = require_messages(row.get(side), f"{where}: {side}")
            if len(messages) != 1 or messages[0]["role"] != "assistant":
                raise DataError(f"{where}: {side} must be one assistant message")
            tokens = response_tokens(base, messages[0]["content"])
            seen.cut += len(tokens) > room
            branches.append(Branch(tokens[:room]))
        probability = row.get("probability", 1.0)
        if not isinstance(probability, int | float) or not 0.0 <= probability <= 1.0:
            raise DataError(f"{where}: probability is {probability!r}, not a number from 0 to 1")
        tree = Tree(prompt, tuple(branches))
        pairs.append(Pair(str(row.get("prompt_id", number)), tree, float(probability)))
    seen.report(events, what)
    if not pairs:
        raise DataError(f"no {what} row is left: every prompt exceeds data.max_prompt_length")
    return pairs


def encode_conversations(
    base: Base, rows: Sequence[Row], config: DataConfig, events: EventWriter
) -> list[Tree]:
    """Conversations as trees whose assistant turns are scored, end-of-turn tokens included."""
    trees, seen = [], Encoded()
    for number, row in enumerate(rows, start=1):
        where = f"train row {number} ({row.get('id', 'no id')})"
        messages = require_messages(row.get("messages"), f"{where}: messages")
        if messages[-1]["role"] != "assistant":
            raise DataError(f"{where}: the last message must be the assistant's")
        first = next(i for i, message in enumerate(messages) if message["role"] == "assistant")
        if first == 0:
            raise DataError(f"{where}: an assistant message needs something to answer")
        prompt = prompt_tokens(base, messages[:first])
        tokens: list[int] = []
        scored: list[bool] = []
        for index in range(first, len(messages)):
            if messages[index]["role"] != "assistant":
                continue
            context = prompt_tokens(base, messages[:index])
            between = context[len(prompt) + len(tokens) :]  # the turns since the last answer
            answer = response_tokens(base, messages[index]["content"])
            tokens += [*between, *answer]
            scored += [False] * len(between) + [True] * len(answer)
        if len(prompt) > config.max_prompt_length:
            seen.too_long.append(str(row.get("id", number)))
            continue
        room = config.max_length - len(prompt)
        seen.cut += len(tokens) > room
        trees.append(Tree(prompt, (Branch(tuple(tokens[:room]), tuple(scored[:room])),)))
    seen.report(events, "train")
    if not trees:
        raise DataError("no train row is left: every prompt exceeds data.max_prompt_length")
    return trees


@dataclass(frozen=True)
class PromptRow:
    """A prompt to answer."""

    id: str
    messages: list[dict[str, str]]
    tokens: tuple[int, ...]


def encode_prompts(
    base: Base, rows: Iterable[Row], config: DataConfig, events: EventWriter
) -> list[PromptRow]:
    """Prompts as tokens. Raises DataError when none is left."""
    prompts, seen = [], Encoded()
    for number, row in enumerate(rows, start=1):
        messages = require_messages(row.get("prompt"), f"prompt row {number}: prompt")
        tokens = prompt_tokens(base, messages)
        if len(tokens) > config.max_prompt_length:
            seen.too_long.append(str(row.get("id", number)))
            continue
        prompts.append(PromptRow(str(row.get("id", number)), messages, tokens))
    seen.report(events, "prompt")
    if not prompts:
        raise DataError("no prompt is left: every one exceeds data.max_prompt_length")
    return prompts
