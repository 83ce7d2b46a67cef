"""Raw documents as windows of tokens: every token is predicted once, from its own document alone.

A document is what its tokenizer puts in front of a text (a beginning of sequence, or nothing), its
text, and in training the end-of-sequence token. One that is longer than a window goes on in the
next: its first token is the last of the window before, given and not scored again. Where nothing
stands in front of a text its very first token is given too, as in transformers' own loss. Text that
spells a special token stays text.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.engine.data import Branch, Tree
from training.engine.domain import GENERAL, read_text, tokens_of
from training.engine.errors import DataError
from training.engine.files import REPLACED
from training.engine.rundir import EventWriter, Row, is_text, read_rows

#: Optional files of a run folder: the general text that forgetting is measured on, and another that
#: is replayed.
GENERAL_FILE, REPLAY_FILE = "data/general.jsonl", "data/replay.jsonl"


@dataclass(frozen=True)
class Document:
    """A document as the windows that it is read in."""

    name: str
    windows: tuple[Tree, ...]
    #: UTF-8 bytes of the text whose tokens are scored.
    n_bytes: int

    @property
    def n_scored(self) -> int:
        return sum(branch.n_scored for window in self.windows for branch in window.branches)


def text_of(row: Row, where: str) -> str:
    """A row's title and text, a blank line between them. Raises DataError for what is no text."""
    parts = []
    for name in ("title", "text"):
        value = row.get(name, "" if name == "title" else None)
        if not is_text(value):
            raise DataError(f"{where}: {name} is {value!r:.80}, not a text")
        if "\x00" in value:
            raise DataError(
                f"{where}: {name} holds zero bytes: its source was no UTF-8 text (UTF-16, or a "
                "binary file); convert that first"
            )
        parts.append(value.strip() if name == "title" else value)
    text = "\n\n".join(part for part in parts if part)
    replaced = text.count("\ufffd") / max(1, len(text))
    if replaced > REPLACED:
        raise DataError(
            f"{where}: {replaced:.0%} of its text are replacement characters (U+FFFD): it was read "
            "in a wrong encoding before; go back to its source"
        )
    return text


def encode_documents(
    base: Any,
    rows: Sequence[Row],
    longest: int,
    events: EventWriter,
    what: str,
    *,
    ended: bool,
) -> list[Document]:
    """Documents as windows of at most `longest` tokens; empty ones are left out, and counted.

    base: a `Base`, or what stands in for its tokenizer. ended: score the end of each document too,
    which is trained on and not measured: a base need not know how these documents end.
    Raises DataError for a row that is no document, and where none is left.
    """
    lead, end = lead_of(base), (end_of(base),) if ended else ()
    found, empty, long, pieces = [], [], 0, 0
    for number, row in enumerate(rows, start=1):
        name = str(row.get("id", number))
        text = text_of(row, f"{what} row {number} ({row.get('id', 'no id')})")
        ids, places = tokens_of(base, text) if text.strip() else ([], [])
        windows = cut([*ids, *end], lead, longest) if ids else ()
        if not windows:
            empty.append(name)
            continue
        n_bytes = len(text.encode()) if lead else len(text[places[0][1] :].encode())
        found.append(Document(name, windows, n_bytes))
        long += len(windows) > 1
        pieces += len(windows) if len(windows) > 1 else 0
    if empty:
        events.warning(
            "empty_documents",
            f"{len(empty)} of {len(rows)} {what} documents left out: they hold no text, or a "
            f"single token (first: {empty[0]})",
        )
    if not found:
        raise DataError(
            f"the corpus is empty: none of {len(rows)} {what} documents holds text to predict; "
            "give rows with a text"
        )
    if long:
        events.warning(
            "windows",
            f"{long} of {len(found)} {what} documents are longer than {longest} tokens: they are "
            f"read in {pieces} windows, no token twice",
        )
    return found


def lead_of(base: Any) -> tuple[int, ...]:
    """What the tokenizer puts in front of a text by itself: a beginning of sequence, or nothing."""
    plain = base.tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = base.tokenizer("a")["input_ids"]
    return tuple(whole[: whole.index(plain[0])]) if plain and plain[0] in whole else ()


def end_of(base: Any) -> int:
    """The token that ends a document: the end of sequence, which need not be that of a turn."""
    named = base.tokenizer.eos_token_id
    return int(base.eos_id if named is None else named)


def cut(ids: Sequence[int], lead: Sequence[int], longest: int) -> tuple[Tree, ...]:
    """Windows of at most `longest` tokens in which every token of `ids` is scored once.

    Without a lead the first token is given: nothing comes before it.
    """
    given, rest = (tuple(lead), tuple(ids)) if lead else (tuple(ids[:1]), tuple(ids[1:]))
    found = []
    while rest:
        room = longest - len(given)
        scored, rest = rest[:room], rest[room:]
        found.append(Tree(given, (Branch(scored),)))
        given = (*lead, scored[-1])
    return tuple(found)


def replayed(own: int, windows: Sequence[Tree], share: float, seed: int) -> list[Tree]:
    """The general windows that make up `share` of all, beside so many of the domain's.

    Drawn by the seed; all of them where there are too few.
    """
    wanted = round(own * share / (1.0 - share))
    if wanted >= len(windows):
        return list(windows)
    return random.Random(seed).sample(list(windows), wanted)  # noqa: S311 - no secret


def training_windows(
    base: Any, folder: Path, rows: Sequence[Row], config: Any, longest: int, events: EventWriter
) -> tuple[list[Tree], list[int]]:
    """(windows of a run, the number of its document for each; of replayed ones -1).

    config: the run's. Raises DataError as `encode_documents`, and where there is nothing to replay.
    """
    documents = encode_documents(base, rows, longest, events, "train", ended=True)
    windows = [window for document in documents for window in document.windows]
    owners = [number for number, each in enumerate(documents) for _ in each.windows]
    share, path = config.pretrain.replay, folder / REPLAY_FILE
    if not share:
        return windows, owners
    if not path.is_file():
        raise DataError(
            f"pretrain.replay is {share:g}, and there is no {REPLAY_FILE} to replay; add it (rows "
            "as in data.train, other ones than general text is measured on), or set it to 0"
        )
    general = encode_documents(base, read_rows(path), longest, events, "replay", ended=True)
    known = [window for document in general for window in document.windows]
    chosen = replayed(len(windows), known, share, config.seed)
    reached = len(chosen) / (len(windows) + len(chosen))
    if reached < 0.9 * share:
        events.warning(
            "replay_short",
            f"{REPLAY_FILE} holds {len(known)} windows: {reached:.1%} of the training windows are "
            f"general text, and pretrain.replay asks for {share:.1%}",
        )
    return windows + chosen, owners + [-1] * len(chosen)


def general_rows(folder: Path) -> tuple[str, list[Row]]:
    """(where it is from, rows) of the text that forgetting is measured on: the run's own, or the
    enclosed English, a paragraph a document."""
    path = folder / GENERAL_FILE
    if path.is_file():
        return GENERAL_FILE, read_rows(path)
    parts = read_text(GENERAL).strip().split("\n\n")
    return "enclosed", [{"id": f"general-{n}", "text": part} for n, part in enumerate(parts, 1)]
