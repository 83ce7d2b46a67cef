"""Rows of text with a label, as tokens with the number of a class.

A `text` is encoded as its tokenizer does it by itself (with [CLS] and [SEP], or a beginning of
sequence), so that the saved model reads in stock transformers what it read here; `messages` pass
through the chat template. Text that spells a special token stays text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from training.engine.config import ClassifyConfig
from training.engine.data import over_their_mean, require_messages, weight_of
from training.engine.errors import DataError
from training.engine.inspection import digest_of
from training.engine.rundir import EventWriter, Row, is_text

#: Labels that a refusal names before it says how many more there are.
NAMED = 8


@dataclass(frozen=True)
class Labelled:
    """A text with its class."""

    id: str
    tokens: tuple[int, ...]
    #: Number of its class, in the order of the labels.
    target: int
    #: The same for rows of the same text, which are not independent of each other.
    text: str
    #: How far its label is trusted; only ratios matter.
    weight: float = 1.0


def label_in(row: Row, where: str) -> str:
    """A row's label as text; a whole number is one too. Raises DataError."""
    found = row.get("label")
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if not is_text(found) or not str(found).strip():
        raise DataError(f"{where}: label is {found!r}; it must be a text or a whole number")
    return str(found)


def place(number: int, row: Row, what: str) -> str:
    return f"{what} row {number} ({row.get('id', 'no id')})"


def labels_of(train: Sequence[Row], test: Sequence[Row], config: ClassifyConfig) -> list[str]:
    """The classes, in the order of the logits: those given, else those of the rows, sorted.

    Whole numbers are sorted as numbers. Raises DataError for labels that are not among those
    given, test labels that no training row has, and rows of one class.
    """
    found = [
        (place(number, row, what), label_in(row, place(number, row, what)))
        for what, rows in (("train", train), ("test", test))
        for number, row in enumerate(rows, start=1)
    ]
    trained = {label for _, label in found[: len(train)]}
    if config.labels:
        for where, label in found:
            if label not in config.labels:
                raise DataError(
                    f"{where}: label {label!r} is none of classify.labels "
                    f"({in_short(config.labels)}); mend the row, or name it there"
                )
    unseen = sorted({label for _, label in found[len(train) :]} - trained)
    if unseen:
        first = next(where for where, label in found[len(train) :] if label in unseen)
        raise DataError(
            f"{len(unseen)} labels of data.test are in no training row ({in_short(unseen)}; first: "
            f"{first}): they could never be predicted. Add training rows, or leave these out"
        )
    if len(trained) < 2:
        raise DataError(
            f"all {len(train)} training rows have the label {found[0][1]!r}: there is nothing to "
            "tell apart; give rows of two or more classes"
        )
    if config.labels:
        return list(config.labels)
    if all(label.lstrip("-").isdecimal() for label in trained):
        return sorted(trained, key=int)
    return sorted(trained)


def in_short(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def encode_labelled(
    base: Any,
    rows: Sequence[Row],
    labels: Sequence[str],
    longest: int,
    events: EventWriter,
    what: str,
) -> list[Labelled]:
    """Rows as tokens, cut where they are longer (and counted). Raises DataError for a wrong row.

    base: a `Base`, or what stands in for its tokenizer (`token_inspection.Texts`). longest: tokens
    of a text, its special tokens included.
    """
    number_of = {label: number for number, label in enumerate(labels)}
    found, cut = [], 0
    for number, row in enumerate(rows, start=1):
        where = place(number, row, what)
        tokens, whole = text_tokens(base, row, where, longest)
        cut += whole > len(tokens)
        target = number_of[label_in(row, where)]
        name = str(row.get("id", number))
        text = digest_of(row.get("text", row.get("messages")))
        found.append(Labelled(name, tokens, target, text, weight_of(row, where)))
    if cut:
        events.warning(
            "cut",
            f"{cut} of {len(found)} {what} texts are longer than {longest} tokens: they "
            "are read up to there",
        )
    return found


def text_tokens(base: Any, row: Row, where: str, longest: int) -> tuple[tuple[int, ...], int]:
    """(the tokens of a row's text, at most `longest`; how many it had). Raises DataError."""
    tokenizer = base.tokenizer
    if ("text" in row) == ("messages" in row):
        raise DataError(f"{where}: give text or messages, one of the two")
    if "text" in row:
        text = row["text"]
        if not is_text(text):
            raise DataError(f"{where}: text is {text!r}, not a text")
        if not text.strip():
            raise DataError(f"{where}: text is empty; leave the row out")
        plain: list[int] = tokenizer(text, split_special_tokens=True)["input_ids"]
        tokens = plain
        if len(plain) > longest:
            # by the tokenizer, which keeps the end of sequence that an encoder was trained with
            tokens = tokenizer(
                text, split_special_tokens=True, truncation=True, max_length=longest
            )["input_ids"]
    else:
        messages = require_messages(row["messages"], f"{where}: messages")
        if not any(message["content"].strip() for message in messages):
            raise DataError(f"{where}: messages are empty; leave the row out")
        if tokenizer.chat_template is None:
            raise DataError(
                f"{where}: messages need a chat template, which the base's tokenizer has not; "
                "give the row as text"
            )
        try:
            rendered = tokenizer.apply_chat_template(messages, tokenize=False)
        except TemplateError as error:
            raise DataError(f"{where}: the base's chat template refuses it: {error}") from None
        plain = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        tokens = plain[:longest]
    if not tokens:
        raise DataError(f"{where}: the base's tokenizer makes no token of it; leave the row out")
    return tuple(tokens), len(plain)


def row_weights(rows: Sequence[Labelled], kind: str) -> list[float]:
    """What each training row counts for. Their mean is 1.

    none: the row's own weight over the mean of all. balanced: that, times rows / (classes with rows
    · the sum of it over the row's class), so that every class counts alike; where no row has a
    weight of its own that is scikit-learn's class_weight "balanced" (King & Zeng 2001).
    """
    own = over_their_mean([row.weight for row in rows])
    if kind == "none":
        return own
    totals: dict[int, float] = defaultdict(float)
    for row, weight in zip(rows, own, strict=True):
        totals[row.target] += weight
    return [
        weight * len(rows) / (len(totals) * totals[row.target])
        for row, weight in zip(rows, own, strict=True)
    ]
