"""The `evaluation` of result.json: figures with their intervals and n, for the report and pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from training.engine.answer_figures import distinct_n, refuses, repeated_share
from training.engine.calibration import calibration_error, confidence_of, reliability
from training.engine.data import Pair
from training.engine.human_agreement import (
    against_annotators,
    agreement,
    agreement_bucket,
    by_bucket,
    estimate,
    judged,
    length_bucket,
)
from training.engine.intervals import clustered_interval, right
from training.engine.rollouts import Rollouts
from training.engine.rundir import Row
from training.engine.win_rate import by_scores

#: Answers of policy and reference that the report shows beside each other.
EXAMPLES = 5


def of_margins(
    margins: Sequence[float], pairs: Sequence[Pair], rows: Sequence[Row]
) -> dict[str, Any]:
    """Accuracy, calibration and buckets of margins on held-out pairs, beside what people do.

    margins: one per pair (score units or nats). rows: the held-out rows that pairs were made of.
    Raises DataError for a row whose judgments are none.
    """
    prompts = [pair.prompt_id for pair in pairs]
    hits = right(margins)
    people = [judged(rows[pair.row - 1], f"test row {pair.row}") for pair in pairs]
    between = agreement(people, same_person=False)
    bins = reliability([confidence_of(margin) for margin in margins], hits)
    lengths = [max(len(branch.tokens) for branch in pair.tree.branches) for pair in pairs]
    return {
        "accuracy": estimate(hits, prompts),
        "human": {
            "inter_annotator": estimate(between, prompts),
            "intra_annotator": estimate(agreement(people, same_person=True), prompts),
        },
        "by_annotator": against_annotators(margins, people, prompts),
        "by_agreement": by_bucket(
            hits,
            prompts,
            [[agreement_bucket(v)] if own else [] for v, own in zip(between, people, strict=True)],
        ),
        "by_length": by_bucket(hits, prompts, [[length_bucket(n)] for n in lengths]),
        "calibration": {"ece": calibration_error(bins), "bins": bins, "n": len(pairs)},
    }


def of_answers(
    new: Rollouts, old: Rollouts, prompts: Sequence[Row], decode: Callable[[Sequence[int]], str]
) -> dict[str, Any]:
    """Policy's and reference's answers to the same prompts, and how often the policy's win."""
    names = [str(prompt["id"]) for prompt in prompts]
    texts = {
        side: [decode(answer.tokens) for answer in rollouts.answers]
        for side, rollouts in (("policy", new), ("reference", old))
    }
    return {
        "win_rate": by_scores(new.scores.tolist(), old.scores.tolist(), names),
        "policy": answer_sheet(new, texts["policy"], names),
        "reference": answer_sheet(old, texts["reference"], names),
        "examples": [
            {"prompt": prompt["prompt"][-1]["content"], "policy": a, "reference": b}
            for prompt, a, b in list(
                zip(prompts, texts["policy"], texts["reference"], strict=True)
            )[:EXAMPLES]
        ],
    }


def answer_sheet(rollouts: Rollouts, texts: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Reward, KL, length, EOS, repetition and refusal rate, and distinct-n of one side."""
    tokens = [answer.tokens for answer in rollouts.answers]
    return {
        "reward": mean_of(rollouts.scores.tolist(), names),
        "kl": mean_of(rollouts.kl().tolist(), names),
        "length": mean_of(rollouts.lengths.tolist(), names),
        "eos_rate": estimate(rollouts.finished.float().tolist(), names),
        "repeated_4grams": estimate([repeated_share(answer) for answer in tokens], names),
        "refusal_rate": estimate([float(refuses(text)) for text in texts], names),
        "distinct_1": distinct_n(tokens, 1),
        "distinct_2": distinct_n(tokens, 2),
    }


def mean_of(values: Sequence[float], clusters: Sequence[str]) -> dict[str, Any]:
    """Mean of numbers that are no shares, with its clustered 95 % interval and n.

    Of one prompt there is no interval (low and high None), of none no mean either.
    """
    mean, low, high = clustered_interval(values, clusters)
    return {"value": mean if values else None, "low": low, "high": high, "n": len(values)}
