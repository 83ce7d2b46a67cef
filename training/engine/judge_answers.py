"""What a judge has answered and what that cost, kept so that nothing is asked twice. No torch.

Every reply is one line of an attempt's answers.jsonl and on the disk before the next question is
asked: a run that is killed between two questions has paid for at most the one under way.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from training.engine.config_judge import ANSWERS, JudgeConfig
from training.engine.files import cannot_write
from training.engine.judge_prompts import Reply
from training.engine.rundir import RunDir

#: Characters of a reply that are kept.
LONGEST_TEXT = 20_000
#: Tokens of a chat template around a question, at most.
TEMPLATE = 64


class Answers:
    """Replies by the key of their question, of all attempts at a run."""

    def __init__(self, run: RunDir) -> None:
        self._path = run.attempt_path / ANSWERS
        self._known: dict[str, Reply] = {}
        for path in sorted(run.path.glob(f"attempts/*/{ANSWERS}")):
            self._known |= read_answers(path)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Reply:
        return self._known[key]

    def all(self) -> list[Reply]:
        return list(self._known.values())

    def remember(self, replies: Mapping[str, Reply]) -> None:
        """Append replies and wait until the disk has them. Raises OutOfSpaceError."""
        # an empty line first: what a crash cut before this stays alone
        lines = ["", *(json.dumps({"key": key, **asdict(replies[key])}) for key in replies), ""]
        try:
            with self._path.open("a", encoding="utf-8") as handle:
                handle.write("\n".join(lines))
                handle.flush()
                os.fsync(handle.fileno())
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._known |= replies


def read_answers(path: Path) -> dict[str, Reply]:
    """Replies by key; a line that a crash cut is left out."""
    found: dict[str, Reply] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
            key = str(row.pop("key"))
            if row["letters"] is not None:
                a, b, c = row["letters"]
                row["letters"] = (float(a), float(b), float(c))
            found[key] = Reply(**row)
        except (ValueError, KeyError, TypeError):
            continue
    return found


class Budget:
    """Tokens and money of a run, with its earlier attempts; says when to stop before exceeding."""

    def __init__(self, judge: JudgeConfig) -> None:
        self._judge = judge
        self.tokens = 0
        self.cost = 0.0

    def spend(self, replies: Sequence[Reply]) -> None:
        for reply in replies:
            self.tokens += reply.tokens_in + reply.tokens_out
            self.cost += cost_of(self._judge, reply.tokens_in, reply.tokens_out)

    def refusal(self, questions: Sequence[Sequence[Mapping[str, str]]]) -> str | None:
        """Why these questions may not be asked any more: with them a budget might be exceeded."""
        asked = sum(most_tokens(question) for question in questions)
        answered = len(questions) * self._judge.max_new_tokens
        most, least = self._judge.max_tokens_total, self.tokens + asked + answered
        if most is not None and least > most:
            return (
                f"stopped at judge.max_tokens_total: {self.tokens} of {most} tokens are spent, and "
                f"the next question may take {asked + answered}"
            )
        money = self._judge.max_cost
        further = cost_of(self._judge, asked, answered)
        # a sum of many small prices may miss its own total by rounding
        if money is not None and self.cost + further > money * (1.0 + 1e-9):
            return (
                f"stopped at judge.max_cost: {self.cost:.6g} of {money:g} is spent, and the next "
                f"question may cost {further:.3g}"
            )
        return None


def most_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """A bound on the tokens of a question: a token spells at least one byte of its UTF-8."""
    return sum(len(turn["content"].encode()) for turn in messages) + TEMPLATE


def cost_of(judge: JudgeConfig, tokens_in: int, tokens_out: int) -> float:
    return math.fsum([tokens_in * judge.price_in, tokens_out * judge.price_out]) / 1e6
