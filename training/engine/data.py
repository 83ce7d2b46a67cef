"""Rows of text to rows of tokens. Lengths are carried explicitly from here on.

Masks are never inferred from a pad id: on many chat models the pad token is the token that ends a
turn. A response ends with that token, so "stop here" is learnt, scored and sampled alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jinja2 import TemplateError

from training.engine.config import DataConfig
from training.engine.errors import DataError
from training.engine.models import Base
from training.engine.rundir import EventWriter, Row, is_text

#: Shares are written with six decimals, so sums of them are off by so much.
ROUNDING = 2e-6


@dataclass(frozen=True)
class Branch:
    """Tokens that follow a prompt. `scored` marks those that count; None means all of them."""

    tokens: tuple[int, ...]
    scored: tuple[bool, ...] | None = None

    @property
    def n_scored(self) -> int:
        return len(self.tokens) if self.scored is None else sum(self.scored)


@dataclass(frozen=True)
class Tree:
    """A prompt and the branches that share it: (chosen, rejected), samples, or one conversation."""

    prompt: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(len(branch.tokens) for branch in self.branches)


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a row says of its two responses."""

    probability: float = 1.0
    """P(chosen better), a tie counted half."""
    tie: float = 0.0
    """Share of the judges who saw a tie."""
    undecided: bool = False
    """Whether the row is a tie: its judges as a whole saw no better answer."""
    margin: float = 0.0
    """How much better chosen is (score units)."""
    weight: float = 1.0
    """Trust in the row; only its ratio to other rows' matters."""


@dataclass(frozen=True)
class Pair:
    """One preference: its tree is (prompt; chosen, rejected)."""

    prompt_id: str
    tree: Tree
    label: Label
    row: int = 0
    """Which of the rows that were given, from 1."""


@dataclass
class Encoded:
    """What encoding left out or cut, counted."""

    too_long: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    undecided: int = 0
    cut: int = 0

    def report(self, events: EventWriter, what: str) -> None:
        if self.too_long:
            events.warning(
                "prompt_too_long",
                f"{len(self.too_long)} {what} rows left out: their prompts exceed "
                "data.max_prompt_length, or leave no room for an answer "
                f"(first: {self.too_long[0]})",
            )
        if self.rewritten:
            events.warning(
                "rewritten_by_template",
                f"{len(self.rewritten)} {what} rows left out: the base's chat template does not "
                f"repeat their earlier answers as given (first: {self.rewritten[0]})",
            )
        if self.undecided:
            events.warning(
                "ties",
                f"{self.undecided} {what} rows left out: they are ties, which only a reward model "
                "with reward.ties set can learn from",
            )
        if self.cut:
            events.warning("cut", f"{self.cut} {what} responses cut at data.max_length")

    def why_left_out(self) -> str:
        """For the error when nothing is left."""
        if self.undecided and not self.too_long:
            return "every row is a tie; reward.ties says what a reward model makes of them"
        if self.rewritten and not self.too_long:
            return "the base's chat template repeats none of their earlier answers as given"
        return "every prompt exceeds data.max_prompt_length; raise it, or shorten the prompts"


def require_messages(value: Any, where: str) -> list[dict[str, str]]:
    """A list of {"role", "content"} with text contents, or a DataError."""
    good = isinstance(value, list) and all(
        isinstance(message, dict)
        and is_text(message.get("content"))
        and message.get("role") in ("system", "user", "assistant")
        for message in value
    )
    if not good or not value:
        raise DataError(f"{where} must be a list of {{role, content}} messages with text contents")
    return list(value)


def prompt_tokens(
    base: Base, messages: list[dict[str, str]], where: str = "prompt"
) -> tuple[int, ...]:
    """A conversation up to where the assistant's answer begins.

    Raises DataError where the base's chat template refuses it (a role it lacks, an odd order).
    """
    try:
        text = base.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        raise DataError(f"{where}: the base's chat template refuses it: {error}") from None
    return tuple(base.tokenizer(text, add_special_tokens=False)["input_ids"])


def response_tokens(base: Base, text: str) -> tuple[int, ...]:
    """A finished answer: its tokens and the token that ends the turn.

    Text that spells a special token stays text: an answer that quotes "<|im_end|>" must not end
    there, and must not open a turn of somebody else's.
    """
    encoded = base.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
    return (*encoded["input_ids"], base.eos_id)


def within_positions(base: Base, config: DataConfig, events: EventWriter) -> DataConfig:
    """The bounds in tokens, lowered to what the base has positions for (and said so)."""
    if base.positions is None or config.max_length <= base.positions:
        return config
    events.warning(
        "positions",
        f"data.max_length is {config.max_length}, and the base has {base.positions} positions: "
        f"{base.positions} is used",
    )
    shorter = min(config.max_prompt_length, base.positions - 1)
    return replace(config, max_length=base.positions, max_prompt_length=shorter)


def number_of(row: Row, name: str, default: float, where: str, allowed: str) -> float:
    """A finite number of a row. Raises DataError; `allowed` says what there may be."""
    value = row.get(name, default)
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not math.isfinite(value):
        raise DataError(f"{where}: {name} is {value!r}, not {allowed}")
    return float(value)


def label_of(row: Row, where: str) -> Label:
    """The label of a preference row (docs/reference/run-directory.md). Raises DataError."""
    tie_given = row.get("tie")
    if isinstance(tie_given, bool):
        row = {**row, "tie": 1.0 if tie_given else 0.0}
    tie = number_of(row, "tie", 0.0, where, "true, false, or a share from 0 to 1")
    if not 0.0 <= tie <= 1.0:
        raise DataError(f"{where}: tie is {tie!r}, not true, false, or a share from 0 to 1")
    probability = number_of(row, "probability", 1.0 - tie / 2.0, where, "a number from 0 to 1")
    if not 0.0 <= probability <= 1.0:
        raise DataError(f"{where}: probability is {probability!r}, not a number from 0 to 1")
    better, worse = probability - tie / 2.0, 1.0 - probability - tie / 2.0
    if min(better, worse) < -ROUNDING:
        raise DataError(
            f"{where}: probability {probability!r} and tie {tie!r} cannot both be: a tie counts "
            "half in probability, which is then from tie/2 to 1 - tie/2"
        )
    # a row that says nothing of ties is none, even at probability 0.5
    asked = tie_given is not None and tie_given is not False
    undecided = asked and (abs(better - worse) < ROUNDING or tie > max(better, worse))
    margin = number_of(row, "margin", 0.0, where, "a number of 0 or more")
    if margin < 0.0:
        raise DataError(f"{where}: margin is {margin!r}, not a number of 0 or more")
    if margin and undecided:
        raise DataError(f"{where}: margin is {margin!r}, and the row is a tie, which has none")
    return Label(
        probability=probability,
        tie=tie,
        undecided=undecided,
        margin=margin,
        weight=weight_of(row, where),
    )


def weight_of(row: Row, where: str) -> float:
    """How far a row's label is trusted, beside the others'. Raises DataError."""
    weight = number_of(row, "weight", 1.0, where, "a number above 0")
    if weight <= 0.0:
        raise DataError(f"{where}: weight is {weight!r}, not a number above 0; leave the row out")
    return weight


def encode_pairs(
    base: Base,
    rows: Sequence[Row],
    config: DataConfig,
    events: EventWriter,
    what: str,
    *,
    ties: bool = False,
) -> list[Pair]:
    """Preference rows as trees. Raises DataError for a wrong row or when none is left.

    ties: keep rows that are ties, which are otherwise left out and counted.
    """
    config = within_positions(base, config, events)
    pairs, seen = [], Encoded()
    for number, row in enumerate(rows, start=1):
        where = f"{what} row {number} ({row.get('id', 'no id')})"
        prompt = prompt_tokens(
            base, require_messages(row.get("prompt"), f"{where}: prompt"), f"{where}: prompt"
        )
        label = label_of(row, where)
        if label.undecided and not ties:
            seen.undecided += 1
            continue
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
        tree = Tree(prompt, tuple(branches))
        pairs.append(Pair(str(row.get("prompt_id", number)), tree, label, number))
    seen.report(events, what)
    if not pairs:
        raise DataError(f"no {what} row is left: {seen.why_left_out()}")
    return pairs


def relative_weights(pairs: Sequence[Pair]) -> list[float]:
    """Each pair's weight over their mean."""
    return over_their_mean([pair.label.weight for pair in pairs])


def over_their_mean(weights: Sequence[float]) -> list[float]:
    """Weights that are all equal become exactly 1."""
    if len(set(weights)) == 1:
        return [1.0] * len(weights)
    mean = math.fsum(weights) / len(weights)
    return [weight / mean for weight in weights]


def encode_conversations(
    base: Base, rows: Sequence[Row], config: DataConfig, events: EventWriter
) -> list[Tree]:
    """Conversations as trees whose assistant turns are scored, end-of-turn tokens included."""
    config = within_positions(base, config, events)
    trees, seen = [], Encoded()
    for number, row in enumerate(rows, start=1):
        where = f"train row {number} ({row.get('id', 'no id')})"
        messages = require_messages(row.get("messages"), f"{where}: messages")
        if messages[-1]["role"] != "assistant":
            raise DataError(f"{where}: the last message must be the assistant's")
        if messages[0]["role"] == "assistant":
            raise DataError(f"{where}: an assistant message needs something to answer")
        tree = conversation_tree(base, messages, where)
        if tree is None:
            seen.rewritten.append(str(row.get("id", number)))
            continue
        if len(tree.prompt) > config.max_prompt_length:
            seen.too_long.append(str(row.get("id", number)))
            continue
        (whole,) = tree.branches
        assert whole.scored is not None  # noqa: S101 - conversation_tree says what is scored
        room = config.max_length - len(tree.prompt)
        seen.cut += len(whole.tokens) > room
        trees.append(Tree(tree.prompt, (Branch(whole.tokens[:room], whole.scored[:room]),)))
    seen.report(events, "train")
    if not trees:
        raise DataError(f"no train row is left: {seen.why_left_out()}")
    return trees


def conversation_tree(base: Base, messages: list[dict[str, str]], where: str) -> Tree | None:
    """One conversation: up to the first answer the prompt, then one branch of all that follows.

    None where the chat template does not repeat an earlier answer as it was given (some strip it,
    or drop its reasoning): what the model would later see is not what it was taught, and where one
    turn ends and the next begins can no longer be told by counting.
    """
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    prompt = prompt_tokens(base, messages[: answers[0]], where)
    tokens: tuple[int, ...] = ()
    scored: tuple[bool, ...] = ()
    for index in answers:
        context = prompt_tokens(base, messages[:index], where)
        so_far = prompt + tokens
        if context[: len(so_far)] != so_far:
            return None
        between = context[len(so_far) :]  # the turns since the last answer
        answer = response_tokens(base, messages[index]["content"])
        tokens += between + answer
        scored += (False,) * len(between) + (True,) * len(answer)
    return Tree(prompt, (Branch(tokens, scored),))


@dataclass(frozen=True)
class PromptRow:
    """A prompt to answer."""

    id: str
    messages: list[dict[str, str]]
    tokens: tuple[int, ...]


def encode_prompts(
    base: Base,
    rows: Iterable[Row],
    config: DataConfig,
    events: EventWriter,
    *,
    max_new_tokens: int,
) -> list[PromptRow]:
    """Prompts as tokens, with room for an answer. Raises DataError when none is left."""
    longest = config.max_prompt_length
    if base.positions is not None:
        longest = min(longest, base.positions - max_new_tokens)
    if longest < 1:
        raise DataError(
            f"max_new_tokens is {max_new_tokens}, and the base has {base.positions} positions for "
            "prompt and answer together; ask for shorter answers"
        )
    prompts, seen = [], Encoded()
    for number, row in enumerate(rows, start=1):
        where = f"prompt row {number} ({row.get('id', 'no id')}): prompt"
        messages = require_messages(row.get("prompt"), where)
        tokens = prompt_tokens(base, messages, where)
        if len(tokens) > longest:
            seen.too_long.append(str(row.get("id", number)))
            continue
        prompts.append(PromptRow(str(row.get("id", number)), messages, tokens))
    seen.report(events, "prompt")
    if not prompts:
        raise DataError(f"no prompt is left: {seen.why_left_out()}")
    return prompts
