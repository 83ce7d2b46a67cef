"""Documents to chunks: as many whole sentences as fit into so many tokens, with some repeated.

A chunk ends where a paragraph ends if that leaves it more than half full, else where a sentence
does; a sentence that is too long by itself is cut between tokens. Offsets are kept, so that every
chunk is a stretch of its document to the letter. Holds no torch.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from training.engine.documents import Document
from training.engine.errors import ConfigError

#: Where a sentence ends: Latin, Arabic, Devanagari marks before a space, CJK ones anywhere.
SENTENCE_END = re.compile("(?<=[.!?…؟۔।])[\"'”’)\\]]*\\s+|(?<=[。！？；])[”’」』）]*\\s*|\\n+")
PARAGRAPH_END = re.compile(r"\n[ \t]*\n")
#: A chunk that ends with a paragraph has at least this share of the tokens allowed.
FULL_ENOUGH = 0.5


class Cuts(Protocol):
    """What says which stretch of a text each token stands for."""

    def offsets(self, text: str) -> list[tuple[int, int]]: ...


@dataclass(frozen=True)
class Chunk:
    """A stretch of a document: `text` is document.text[start:end]."""

    document: str
    start: int
    end: int
    text: str
    title: str = ""

    @property
    def id(self) -> str:
        """The same for the same place in a document of the same name."""
        return f"{self.document}#{self.start}-{self.end}"

    @property
    def shown(self) -> str:
        """What is indexed: the title says what a stretch from the middle is about."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True)
class Piece:
    """A sentence, or a part of one: its characters, its tokens, and whether a paragraph ends."""

    start: int
    end: int
    tokens: int
    closes: bool


def chunks_of(document: Document, cuts: Cuts, *, tokens: int, overlap: int) -> list[Chunk]:
    """A document's chunks in order: at most `tokens` each with their title, the last `overlap` or
    fewer of which are said again at the beginning of the next, as far as they are whole sentences.

    A title has at most half of the tokens, and is cut there.
    """
    if not 0 <= overlap < tokens:
        raise ConfigError(
            f"overlap_tokens is {overlap} and chunk_tokens {tokens}: the overlap has to be smaller"
        )
    of_title = cuts.offsets(document.title)[: tokens // 2]
    title = document.title[: of_title[-1][1]] if of_title else ""
    tokens -= len(of_title)
    pieces = pieces_of(document.text, cuts.offsets(document.text), tokens)
    found: list[Chunk] = []
    first = 0
    while first < len(pieces):
        last = last_piece(pieces, first, tokens)
        start, end = pieces[first].start, pieces[last - 1].end
        found.append(Chunk(document.id, start, end, document.text[start:end], title))
        first = next_first(pieces, first, last, tokens, overlap)
    return found


def last_piece(pieces: Sequence[Piece], first: int, tokens: int) -> int:
    """The index behind the last piece of the chunk that begins at `first`."""
    used, last, paragraph = 0, first, None
    while last < len(pieces) and used + pieces[last].tokens <= tokens:
        used += pieces[last].tokens
        last += 1
        if pieces[last - 1].closes and used >= FULL_ENOUGH * tokens:
            paragraph = last
    if last == len(pieces):
        return last
    return paragraph or last


def next_first(pieces: Sequence[Piece], first: int, last: int, tokens: int, overlap: int) -> int:
    """Where the next chunk begins: before `last` by what is repeated, with room for more."""
    if last == len(pieces):
        return last
    room = min(overlap, tokens - pieces[last].tokens)
    begin = last
    while begin - 1 > first and pieces[begin - 1].tokens <= room:
        begin -= 1
        room -= pieces[begin].tokens
    return begin


def pieces_of(text: str, offsets: Sequence[tuple[int, int]], tokens: int) -> list[Piece]:
    """Sentences with what they have in tokens; those above `tokens` are cut."""
    starts = [start for start, _ in offsets]
    closing = {found.start() for found in PARAGRAPH_END.finditer(text)}
    found: list[Piece] = []
    for start, end in sentences(text):
        here = range(bisect_left(starts, start), bisect_left(starts, end))
        closes = end == len(text) or any(at in closing for at in range(end, next_ink(text, end)))
        if len(here) <= tokens:
            found.append(Piece(start, end, len(here), closes))
            continue
        cuts = [start, *(starts[here[i]] for i in range(tokens, len(here), tokens)), end]
        for n, (a, b) in enumerate(pairwise(cuts)):
            count = min(tokens, len(here) - n * tokens)
            found.append(Piece(a, b, count, closes and b == end))
    return found


def next_ink(text: str, at: int) -> int:
    """The place of the next character that is no space."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def sentences(text: str) -> list[tuple[int, int]]:
    """(start, end) of each sentence, without the space around it."""
    borders = [0, *(found.end() for found in SENTENCE_END.finditer(text)), len(text)]
    found = []
    for start, end in pairwise(borders):
        start = min(next_ink(text, start), end)
        end = start + len(text[start:end].rstrip())
        if end > start:
            found.append((start, end))
    return found
