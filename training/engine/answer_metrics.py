"""What a run's answers amount to: every mean with its 95 % interval, questions drawn anew.

Reads the rows of answers.jsonl, so that a run which goes on computes what one that never stopped
does. Holds no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.engine.classify_metrics import Answers, figures
from training.engine.intervals import (
    Interval,
    clustered_interval,
    resampled_counts,
    share_interval,
    with_ends,
)
from training.engine.questions import Question
from training.engine.retrieval_metrics import recall_at, reciprocal_rank
from training.engine.rundir import Row

#: The score that one figure per approach is compared by, for each task.
PRIMARY = {"text": "f1", "json": "field_f1", "labels": "right"}


def quality(
    rows: Sequence[Row], questions: Sequence[Question], task: str, labels: Sequence[str]
) -> tuple[dict[str, float], dict[str, Any]]:
    """(metrics, further parts of the result) of the questions that have a gold answer."""
    scored = [(row, q) for row, q in zip(rows, questions, strict=True) if row["scores"] is not None]
    scores = [row["scores"] for row, _ in scored]
    ids = [question.id for _, question in scored]
    if task == "labels":
        return of_labels([row for row, _ in scored], [q for _, q in scored], labels)
    if task == "json":
        exact = share_interval([float(each["exact"]) for each in scores], ids)
        parsed = share_interval([float(each["parsed"]) for each in scores], ids)
        return {
            **with_ends("answer/field_f1", field_f1(scores)),
            **with_ends("answer/exact", exact),
            **with_ends("answer/parsed", parsed),
        }, {}
    return {
        **with_ends("answer/exact", share_interval([each["exact"] for each in scores], ids)),
        **with_ends("answer/f1", clustered_interval([each["f1"] for each in scores], ids)),
    }, {}


def field_f1(scores: Sequence[Row]) -> Interval:
    """2·right / (said + gold) over the fields of all questions, which are drawn anew."""
    table = np.array([[each["fields"][k] for k in ("right", "said", "gold")] for each in scores])

    def of(sums: Any) -> Any:
        return 2.0 * sums[..., 0] / (sums[..., 1] + sums[..., 2])

    value = float(of(table.sum(axis=0)))
    if len(table) < 2:
        return value, None, None
    drawn = np.concatenate([of(counts @ table) for counts in resampled_counts(len(table))])
    low, high = np.percentile(drawn, [2.5, 97.5])
    return value, float(low), float(high)


def of_labels(
    rows: Sequence[Row], questions: Sequence[Question], labels: Sequence[str]
) -> tuple[dict[str, float], dict[str, Any]]:
    """`classify_metrics` of the labels' log-probs; majority is that of the questions themselves."""
    number_of = {label: number for number, label in enumerate(labels)}
    targets = np.array([number_of[str(question.label)] for question in questions])
    answers = Answers(
        logits=np.array([row["logps"] for row in rows]),
        targets=targets,
        texts=[question.text for question in questions],
        labels=labels,
    )
    most = int(np.bincount(targets, minlength=len(labels)).argmax())
    metrics, found = figures(answers, majority=most)
    return metrics, {"classification": found}


def retrieval(
    rows: Sequence[Row], questions: Sequence[Question]
) -> tuple[dict[str, float], dict[str, Any]]:
    """recall@k and MRR of the k passages that were looked for, and how well citations hold.

    Only questions with gold documents count. A citation is right where its passage is of a gold
    document; a number at which no passage stands is wrong.
    """
    known = [(row, q) for row, q in zip(rows, questions, strict=True) if q.documents]
    found: dict[str, Any] = {"questions_with_documents": len(known)}
    cited = [(each, q) for row, q in known for each in row["citations"]]
    found["citations"] = len(cited)
    found["answers_that_cite"] = sum(bool(row["citations"]) for row in rows)
    found["citations_of_nothing"] = sum(
        each["document"] is None for row in rows for each in row["citations"]
    )
    metrics: dict[str, float] = {}
    if known:
        ids = [q.id for _, q in known]
        ranked = [(row["ranking"], q.documents) for row, q in known]
        recalls = [recall_at(ranking, gold, len(ranking) or 1) for ranking, gold in ranked]
        ranks = [reciprocal_rank(ranking, gold) for ranking, gold in ranked]
        metrics |= with_ends("answer/recall", share_interval(recalls, ids))
        metrics |= with_ends("answer/mrr", share_interval(ranks, ids))
    if cited:
        right = [float(each["document"] in q.documents) for each, q in cited]
        precision = share_interval(right, [q.id for _, q in cited])
        metrics |= with_ends("answer/cited_precision", precision)
    return metrics, found


def speed(timings: Sequence[Row]) -> dict[str, float]:
    """Seconds that questions waited for their blocks, whose answers come together."""
    waits = [each["seconds"] for each in timings for _ in range(each["answers"])]
    if not waits:
        return {}
    median, p95 = np.percentile(waits, [50, 95])
    return {
        "answer/latency_median_s": float(median),
        "answer/latency_p95_s": float(p95),
        "answer/seconds_each": sum(each["seconds"] for each in timings) / len(waits),
    }
