"""Method "judge": a language model says which of two answers is better (RLAIF).

Asks every comparison of data/comparisons.jsonl in both orders; see `judge_prompts` for the rule and
docs/methods/judge.md for what such labels are worth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from training.engine import distributed
from training.engine.config_judge import JudgeConfig
from training.engine.errors import ConfigError, JudgeError
from training.engine.files import write_file
from training.engine.judge_answers import Answers, Budget
from training.engine.judge_endpoint import EndpointJudge
from training.engine.judge_prompts import (
    FIRST,
    SECOND,
    Comparison,
    Reply,
    letter_of,
    question,
    question_key,
    read_comparisons,
    settle,
)
from training.engine.preflight import announce, seed_everything, start
from training.engine.rundir import Row, RunDir
from training.engine.stopping import raise_if_stopped

COMPARISONS = "data/comparisons.jsonl"
#: After so many replies without any verdict nobody pays for more.
GIVE_UP_AFTER = 20
#: Characters of a reason in judgments.jsonl.
LONGEST_REASON = 4000


class Judge(Protocol):
    """Whoever is asked."""

    at_once: int

    def replies(self, questions: Sequence[list[dict[str, str]]]) -> list[Reply]:
        """One reply for each question, in their order."""


def train(run: RunDir) -> dict[str, Any]:
    """Judge every comparison within the budget; writes judgments.jsonl. Returns the result."""
    config = run.config
    settings = config.judge
    assert settings is not None  # noqa: S101 - the config guarantees it
    if distributed.size() > 1:
        raise ConfigError("judge runs in one process; start it without torchrun")
    seed_everything(config)
    comparisons = read_comparisons(run.rows(COMPARISONS))
    run.events.write("phase", name="load")
    judge = load_judge(run, settings, rows=len(comparisons))
    run.events.write("phase", name="judge")
    answers, budget = Answers(run), Budget(settings)
    budget.spend(answers.all())
    stopped = ask_all(run, judge, comparisons, answers, budget)

    found = [settled(comparison, settings, answers) for comparison in comparisons]
    rows = [row for row in found if row is not None]
    if not rows:
        raise JudgeError(f"no comparison was judged in both orders: {stopped}; raise the budget")
    path = run.attempt_path / "judgments.jsonl"
    write_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    metrics = figures(rows) | {"judge/tokens": float(budget.tokens), "judge/cost": budget.cost}
    run.events.metrics(len(rows), metrics)
    if stopped is not None:
        left = len(comparisons) - len(rows)
        stopped = f"{stopped}; {left} of {len(comparisons)} comparisons were not judged"
        run.events.warning("budget", stopped)
    return {
        "steps": len(rows),
        "rows": len(rows),
        "metrics": metrics,
        "reason": stopped,
        "judgments": run.name_of(path),
    }


def load_judge(run: RunDir, settings: JudgeConfig, *, rows: int) -> Judge:
    """The judge that the config names, announced in the events."""
    if settings.url is None:
        from training.engine.judge_local import LocalJudge

        local = LocalJudge(run)
        announce(run, local.base, total_steps=rows, rows=rows, trainable=0)
        return local
    remote = EndpointJudge(settings, run.config.seed)
    start(
        run,
        device="endpoint",
        total_steps=rows,
        rows=rows,
        trainable_parameters=0,
        layers_4bit=0,
        layers_8bit=0,
    )
    return remote


def ask_all(
    run: RunDir,
    judge: Judge,
    comparisons: Sequence[Comparison],
    answers: Answers,
    budget: Budget,
) -> str | None:
    """Ask what has not been answered. Returns why a budget stopped it, None when all was asked.

    The two orders of a comparison follow each other, so that a stop leaves at most one half asked.
    Raises JudgeError, Interrupted; what was answered until then is kept.
    """
    settings = run.config.judge
    assert settings is not None  # noqa: S101 - the config guarantees it
    questions = {
        question_key(asked): asked
        for comparison in comparisons
        for asked in (question(comparison, order, settings) for order in (0, 1))
    }
    waiting = [key for key in questions if key not in answers]
    tally = Tally(comparisons, settings, answers)
    while waiting:
        raise_if_stopped()
        keys = waiting[: judge.at_once]
        if budget.refusal([questions[key] for key in keys]) is not None:
            keys = keys[:1]  # fewer may still fit
        refusal = budget.refusal([questions[key] for key in keys])
        if refusal is not None:
            return refusal
        replies = judge.replies([questions[key] for key in keys])
        answers.remember(dict(zip(keys, replies, strict=True)))
        budget.spend(replies)
        waiting = waiting[len(keys) :]
        expect_verdicts(answers.all())
        run.events.write(
            "progress",
            total_steps=len(comparisons),
            tokens=budget.tokens,
            cost=budget.cost,
            **tally.counts(),
        )
    return None


class Tally:
    """How many comparisons are judged so far, looked at once each in the order they are asked."""

    def __init__(
        self, comparisons: Sequence[Comparison], settings: JudgeConfig, answers: Answers
    ) -> None:
        self._left = iter(comparisons)
        self._next = next(self._left, None)
        self._settings, self._answers = settings, answers
        self._counts = {"step": 0, "flipped": 0, "failed": 0}

    def counts(self) -> dict[str, int]:
        while self._next is not None:
            row = settled(self._next, self._settings, self._answers)
            if row is None:
                break
            self._counts["step"] += 1
            for name in ("flipped", "failed"):
                self._counts[name] += row[name]
            self._next = next(self._left, None)
        return self._counts


def expect_verdicts(replies: Sequence[Reply]) -> None:
    """Raise JudgeError where the judge talks and never says which answer is better."""
    if len(replies) < GIVE_UP_AFTER or any(letter_of(reply) for reply in replies):
        return
    last = replies[-1]
    said = " ".join((last.failure or last.text).split())[:200]
    raise JudgeError(
        f"none of {len(replies)} replies holds one verdict ([[A]], [[B]] or [[C]]); the last: "
        f"{said!r}. Use a model that follows instructions, a larger judge.max_new_tokens, or for a "
        "local base judge.how letters"
    )


def settled(comparison: Comparison, settings: JudgeConfig, answers: Answers) -> Row | None:
    """The judgment of a comparison; None where an order was not asked."""
    keys = [question_key(question(comparison, order, settings)) for order in (0, 1)]
    if any(key not in answers for key in keys):
        return None
    row = settle(comparison, [answers[key] for key in keys])
    return row | {"reasons": [reason[:LONGEST_REASON] for reason in row["reasons"]]}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Shares over the judged comparisons; first_place over single verdicts for one side."""
    n = len(rows)
    places = [
        order_says == (FIRST, SECOND)[order]
        for row in rows
        for order, order_says in enumerate(row["orders"])
        if order_says in (FIRST, SECOND)
    ]
    shares = {
        "judge/decided": sum(row["choice"] in (FIRST, SECOND) for row in rows) / n,
        "judge/flipped": sum(row["flipped"] for row in rows) / n,
        "judge/failed": sum(row["failed"] for row in rows) / n,
    }
    return shares | ({"judge/first_place": sum(places) / len(places)} if places else {})
