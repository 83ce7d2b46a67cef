"""A judge on this machine: a base, with an adapter or without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from training.engine.batching import Packing
from training.engine.data import Branch, Tree, prompt_tokens
from training.engine.dpo import ADAPTER
from training.engine.errors import JudgeError
from training.engine.generation import generate, text_of
from training.engine.judge_answers import LONGEST_TEXT
from training.engine.judge_prompts import Reply
from training.engine.logprobs import response_logps
from training.engine.models import Base, load_base
from training.engine.rundir import RunDir

#: Questions between two looks at the stop flag; their answers are kept together.
AT_ONCE = 8


class LocalJudge:
    """Answers by generating a verdict, or by comparing the probabilities of three letters."""

    at_once = AT_ONCE

    def __init__(self, run: RunDir) -> None:
        """Raises BaseModelError where base or adapter cannot be loaded."""
        judge = run.config.judge
        assert judge is not None  # noqa: S101 - the config guarantees it
        self.base: Base = load_base(run.base)
        self._judge = judge
        self._seed = run.config.seed
        self._longest = run.config.data.max_prompt_length
        self._answer = 1 if judge.how == "letters" else judge.max_new_tokens
        if self.base.positions is not None:
            self._longest = min(self._longest, self.base.positions - self._answer)
        self._adapter: str | None = None
        if run.config.adapter.init_from is not None:
            self._adapter = ADAPTER
            self.base.add_adapter(
                ADAPTER, run.config.adapter, init_from=run.config.adapter.init_from
            )
        self._letters = letter_tokens(self.base) if judge.how == "letters" else ()

    def replies(self, questions: Sequence[list[dict[str, str]]]) -> list[Reply]:
        """One reply for each; a question that is too long for the base is a failure, not cut."""
        prompts = [prompt_tokens(self.base, question) for question in questions]
        fits = [index for index, prompt in enumerate(prompts) if len(prompt) <= self._longest]
        found = [
            Reply(
                text="",
                tokens_in=0,
                tokens_out=0,
                failure=f"not asked: the question has {len(prompt)} tokens, and {self._longest} "
                "fit (data.max_prompt_length, or the base's positions)",
            )
            for prompt in prompts
        ]
        with self.base.use(self._adapter) if self._adapter is not None else nullcontext():
            answered = self._ask([prompts[index] for index in fits])
        for index, reply in zip(fits, answered, strict=True):
            found[index] = reply
        return found

    def _ask(self, prompts: Sequence[tuple[int, ...]]) -> list[Reply]:
        if self._letters:
            return [self._compare(prompt) for prompt in prompts]
        answers = generate(
            self.base,
            prompts,
            max_new_tokens=self._judge.max_new_tokens,
            temperature=0.0,
            seed=self._seed,
        )
        return [
            Reply(
                text=text_of(self.base, answer)[:LONGEST_TEXT],
                tokens_in=len(prompts[answer.prompt]),
                tokens_out=len(answer.tokens),
            )
            for answer in answers
        ]

    def _compare(self, prompt: tuple[int, ...]) -> Reply:
        """The letters' probabilities as the next token, made to sum to 1.

        One question at a time and in plain rows: which others stand beside it changes no bit.
        """
        tree = Tree(prompt, tuple(Branch((letter,)) for letter in self._letters))
        logps = response_logps(self.base, [tree], Packing(tree.length, shared=False))[0]
        a, b, c = torch.softmax(logps.double(), dim=0).tolist()
        if not math.isfinite(a + b + c):
            raise JudgeError("the base gives no finite probability to A, B or C; use another base")
        return Reply(
            text=f"A {a:.4f}, B {b:.4f}, C {c:.4f}",
            tokens_in=len(prompt),
            tokens_out=1,
            letters=(a, b, c),
        )


def letter_tokens(base: Base) -> tuple[int, ...]:
    """The tokens of A, B and C. Raises JudgeError where they are not one token each, or the same.

    With one token each the comparison is fair: a letter of two would pay for both.
    """
    found = [base.tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in "ABC"]
    tokens = tuple(ids[0] for ids in found if len(ids) == 1)
    if len(set(tokens)) != 3:
        raise JudgeError(
            "the base's tokenizer has no token of its own for each of A, B and C; "
            "use judge.how verdict"
        )
    return tokens
