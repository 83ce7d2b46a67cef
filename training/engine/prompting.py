"""Prompt templates: what is asked, with examples chosen by similarity and numbered passages.

A template is part of the config (`PromptConfig`): its name, its version, and a digest over every
word of it and over the examples it may draw on, so that two results with one digest were asked in
the same way. Whatever comes from data is broken up where it spells a control token, so that no
document, question or example can end a turn or open one. Holds no torch.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from training.engine.config_answer import PromptConfig
from training.engine.control_tokens import harmless
from training.engine.documents import Document
from training.engine.errors import DataError
from training.engine.questions import EXAMPLES, Question

PLACE = re.compile(r"\{(question|passages|n|text|title)\}")
Messages = list[dict[str, str]]


def digest(prompt: PromptConfig, examples: Sequence[Question] = ()) -> str:
    """SHA-256 of a template and, where it shows examples, of what they are drawn from."""
    rows = [asdict(each) for each in examples] if prompt.examples else []
    whole = json.dumps([asdict(prompt), rows], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(whole.encode()).hexdigest()


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with its places filled, in one pass: a value's own braces stay as they are."""
    return PLACE.sub(lambda place: values.get(place.group(1), place.group()), template)


def messages(
    prompt: PromptConfig,
    question: str,
    *,
    passages: str = "",
    examples: Sequence[Question] = (),
    special: Sequence[str] = (),
) -> Messages:
    """The conversation that asks a question.

    Examples are earlier turns; they show question and answer and no passages. passages: as they
    stand in the prompt, harmless already. special: `special_tokens` of the base.
    """
    found: Messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    for each in examples:
        found += [
            {"role": "user", "content": harmless(each.text, special)},
            {"role": "assistant", "content": harmless(each.answer, special)},
        ]
    asked = {"question": harmless(question, special), "passages": passages}
    return [*found, {"role": "user", "content": filled(prompt.user, asked)}]


def conversation(prompt: PromptConfig, example: Question) -> Messages:
    """An example as a conversation to train on: asked as the template asks, and answered."""
    asked = messages(prompt, example.text)
    return [*asked, {"role": "assistant", "content": example.answer}]


class Examples:
    """Question and answer pairs from which a question's own are chosen."""

    def __init__(self, pool: Sequence[Question], prompt: PromptConfig, seed: int) -> None:
        """Raises DataError where there are fewer than the template shows."""
        self.pool = [each for each in pool if each.scored]
        if len(self.pool) < prompt.examples:
            raise DataError(
                f"answer.prompt.examples is {prompt.examples}, and {EXAMPLES} holds "
                f"{len(self.pool)} with an answer; give more of them"
            )
        self._wanted, self._select, self._seed = prompt.examples, prompt.select, seed
        self._texts = [normal(each.text) for each in self.pool]
        self._search = None
        if self._wanted and self._select not in ("first", "random"):
            from training.engine.retrieval import in_memory

            documents = [Document(str(n), each.text) for n, each in enumerate(self.pool)]
            self._search = in_memory(documents, dense=self._select != "bm25")

    def chosen(self, question: Question) -> list[Question]:
        """The examples of a question, the most similar one last, next to it.

        An example that asks the same is never shown: its answer would be given away. Fewer than
        wanted come back where that leaves no others.
        """
        if not self._wanted:
            return []
        order = [n for n in self._order(question) if self._texts[n] != normal(question.text)]
        return [self.pool[n] for n in reversed(order[: self._wanted])]

    def _order(self, question: Question) -> list[int]:
        """Numbers of all examples, the ones to show first."""
        every = list(range(len(self.pool)))
        if self._search is not None:
            hits = self._search.search(question.text, len(self._search.chunks), self._select)
            similar = dict.fromkeys(int(hit.chunk.document) for hit in hits)
            return [*similar, *(n for n in every if n not in similar)]
        if self._select == "random":
            random.Random(f"{self._seed}/{question.id}").shuffle(every)  # noqa: S311 - no secret
        return every


def normal(text: str) -> str:
    return " ".join(text.casefold().split())
