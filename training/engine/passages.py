"""Passages in a prompt: numbered, harmless, as many as fit, and what an answer cites of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.engine.config_answer import PromptConfig
from training.engine.control_tokens import harmless
from training.engine.data import prompt_tokens
from training.engine.errors import DataError
from training.engine.models import Base
from training.engine.prompting import filled, messages
from training.engine.questions import Question
from training.engine.retrieval import Hit

CITED = re.compile(r"\[(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\]")


@dataclass(frozen=True)
class Shown:
    """A passage as it stands in a prompt: the characters start to end of a document."""

    n: int
    document: str
    start: int
    end: int


@dataclass(frozen=True)
class Asked:
    """A question as tokens, with what is in the prompt and what had to be left out of it.

    cut: examples and passages left out, characters of the first passage and of the question.
    """

    tokens: tuple[int, ...]
    passages: tuple[Shown, ...]
    examples: tuple[str, ...]
    cut: dict[str, int]


@dataclass
class _Room:
    """What goes into a prompt, before it is known whether it fits."""

    question: str
    examples: list[Question]
    hits: list[Hit]
    first: int | None = None
    """Characters of the first passage; all of them where None."""

    def text_of(self, n: int) -> str:
        text = self.hits[n].chunk.text
        return text[: self.first] if n == 0 else text


def ask(
    base: Base,
    prompt: PromptConfig,
    question: Question,
    *,
    hits: Sequence[Hit],
    examples: Sequence[Question],
    longest: int,
    special: Sequence[str],
) -> Asked:
    """A question's prompt of at most `longest` tokens.

    What does not fit is left out in this order: examples, the least similar first; passages, the
    worst first; the end of the best passage; the end of the question. Raises DataError where the
    template alone is too long.
    """
    room = _Room(question.text, list(examples), list(hits))

    def tokens() -> tuple[int, ...]:
        passages = "\n\n".join(
            passage(prompt, n, hit, room.text_of(n), special) for n, hit in enumerate(room.hits)
        )
        asked = messages(
            prompt, room.question, passages=passages, examples=room.examples, special=special
        )
        return prompt_tokens(base, asked, f"question {question.id}")

    found = tokens()
    while len(found) > longest and room.examples:
        room.examples.pop(0)
        found = tokens()
    while len(found) > longest and len(room.hits) > 1:
        room.hits.pop()
        found = tokens()
    if len(found) > longest and room.hits:
        best = len(room.hits[0].chunk.text)

        def with_passage(size: int) -> bool:
            room.first = size
            return len(tokens()) <= longest

        room.first = most(best, with_passage)
        if not room.first:
            room.hits.clear()
        found = tokens()
    if len(found) > longest:

        def with_question(size: int) -> bool:
            room.question = question.text[:size]
            return len(tokens()) <= longest

        room.question = question.text[: most(len(question.text), with_question)]
        found = tokens()
        if len(found) > longest or not room.question:
            raise DataError(
                f"the prompt template {prompt.name!r} leaves no room for a question: {longest} "
                "tokens fit (data.max_prompt_length, or the base's positions less the answer); "
                "shorten it, or raise data.max_prompt_length"
            )
    shown = tuple(
        Shown(n, hit.chunk.document, hit.chunk.start, hit.chunk.start + len(room.text_of(n - 1)))
        for n, hit in enumerate(room.hits, start=1)
    )
    first = len(room.hits[0].chunk.text) - len(room.text_of(0)) if room.hits else 0
    cut = {
        "examples": len(examples) - len(room.examples),
        "passages": len(hits) - len(room.hits),
        "passage_characters": first,
        "question_characters": len(question.text) - len(room.question),
    }
    return Asked(found, shown, tuple(each.id for each in room.examples), cut)


def passage(prompt: PromptConfig, n: int, hit: Hit, text: str, special: Sequence[str]) -> str:
    """A passage as the template shows it, counted from 1."""
    title = harmless(hit.chunk.title, special)
    return filled(
        prompt.passage, {"n": str(n + 1), "text": harmless(text, special), "title": title}
    )


def most(size: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 0 up to `size` that fits, 0 where none does."""
    low, high = 0, size
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def citations(answer: str, shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """The passages that an answer cites as [n], each once; a number that stands at none is kept
    with document null."""
    numbers = [int(each) for group in CITED.findall(answer) for each in re.findall(r"\d+", group)]
    by_number = {each.n: each for each in shown}
    nowhere = {"document": None, "start": None, "end": None}
    return [
        asdict(by_number[n]) if n in by_number else {"n": n, **nowhere}
        for n in dict.fromkeys(numbers)
    ]


def without_citations(answer: str) -> str:
    """What is compared with a gold answer."""
    return CITED.sub("", answer)
