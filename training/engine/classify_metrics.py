"""How well a classifier does on held-out rows: by class, against guessing, and how sure it may be.

Everything is computed in fp64 from logits. Shares have 95 % intervals (`intervals`): rows of one
text are drawn together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.engine import calibration
from training.engine.calibration import calibration_error
from training.engine.intervals import (
    Interval,
    clustered_interval,
    resampled_counts,
    share_interval,
    with_ends,
)

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What a classifier said of n rows, and what was right.

    logits: (n, K). targets: (n,) class numbers. texts: for each row what tells its text from
    others. labels: K names.
    """

    logits: Numbers
    targets: NDArray[np.int64]
    texts: Sequence[str]
    labels: Sequence[str]

    @property
    def predicted(self) -> NDArray[np.int64]:
        return self.logits.argmax(axis=1)

    @property
    def log_probabilities(self) -> Numbers:
        """(n, K), by log-softmax"""
        shifted = self.logits - self.logits.max(axis=1, keepdims=True)
        found: Numbers = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return found


def figures(answers: Answers, *, majority: int) -> tuple[dict[str, float], dict[str, Any]]:
    """(metrics, the `classification` of result.json).

    majority: the class that is most frequent in training; always saying it is the baseline.
    """
    targets, predicted = answers.targets, answers.predicted
    right = predicted == targets
    losses = -answers.log_probabilities[np.arange(len(targets)), targets]
    accuracy = share_interval(right.tolist(), answers.texts)
    guessed = share_interval((targets == majority).tolist(), answers.texts)
    log_loss = clustered_interval(losses.tolist(), answers.texts)
    f1, macro = f1_scores(answers)
    bins = reliability(answers)
    ece = calibration_error(bins)
    metrics = {
        **with_ends("classify/accuracy", accuracy),
        **with_ends("classify/macro_f1", macro),
        **with_ends("classify/log_loss", log_loss),
        "classify/ece": ece,
        **with_ends("classify/majority", guessed),
    }
    found = {
        "labels": list(answers.labels),
        "rows": len(targets),
        "texts": len(set(answers.texts)),
        "confusion": confusion(answers).tolist(),
        "per_class": per_class(answers, f1),
        "majority": {"label": answers.labels[majority], **with_ends("accuracy", guessed)},
        "calibration": {"ece": ece, "bins": bins},
    }
    return metrics, found


def confusion(answers: Answers) -> NDArray[np.int64]:
    """How many rows of each class (lines) were taken for each class (columns): (K, K)"""
    k = len(answers.labels)
    flat = np.bincount(answers.targets * k + answers.predicted, minlength=k * k)
    return flat.reshape(k, k)


def per_class(answers: Answers, f1: Sequence[Sequence[float | None]]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of every class with its rows; None where there is none to count."""
    targets, predicted = answers.targets, answers.predicted
    texts = np.asarray(answers.texts)
    found = []
    for number, label in enumerate(answers.labels):
        said, is_it = predicted == number, targets == number
        precision = share_of(is_it[said], texts[said])
        recall = share_of(said[is_it], texts[is_it])
        found.append(
            {
                "label": label,
                **with_ends("precision", precision),
                **with_ends("recall", recall),
                **with_ends("f1", f1[number]),
                "support": int(is_it.sum()),
                "predicted": int(said.sum()),
            }
        )
    return found


def share_of(hits: NDArray[np.bool_], texts: NDArray[np.str_]) -> Sequence[float | None]:
    return share_interval(hits.tolist(), texts.tolist()) if len(hits) else (None, None, None)


def f1_scores(
    answers: Answers,
) -> tuple[list[Sequence[float | None]], Interval]:
    """F1 of every class, and their mean over the classes that occur among labels or answers, each
    with its interval.

    F1 = 2 TP / (2 TP + FP + FN), which is 0 for a class that is never right (as scikit-learn's);
    intervals resample texts (cluster bootstrap, Field & Welsh 2007).
    Returns: ((value, low, high) by class, None where the class does not occur; macro)
    """
    names, text_of = np.unique(np.asarray(answers.texts), return_inverse=True)
    k = len(answers.labels)
    right = answers.predicted == answers.targets

    def by_text(numbers: NDArray[np.int64], at: NDArray[np.int64]) -> Numbers:
        counts = np.bincount(at * k + numbers, minlength=len(names) * k)
        return counts.reshape(len(names), k).astype(float)

    hits = by_text(answers.targets[right], text_of[right])
    both = by_text(answers.targets, text_of) + by_text(answers.predicted, text_of)

    def scores(weights: Numbers) -> Numbers:
        """weights: how often each text counts, (draws, texts). Returns: (draws, K)"""
        above, below = 2.0 * (weights @ hits), weights @ both
        return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)

    own = scores(np.ones((1, len(names))))[0]
    if len(names) < 2:
        return [(None if np.isnan(v) else float(v), None, None) for v in own], (
            float(np.nanmean(own)),
            None,
            None,
        )
    drawn = np.concatenate([scores(weights) for weights in resampled_counts(len(names))])
    of_classes: list[Sequence[float | None]] = []
    for number, value in enumerate(own):
        known = drawn[:, number][~np.isnan(drawn[:, number])]
        low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
        none = bool(np.isnan(value))
        of_classes.append((None,) * 3 if none else (float(value), float(low), float(high)))
    low, high = np.percentile(np.nanmean(drawn, axis=1), [2.5, 97.5])
    return of_classes, (float(np.nanmean(own)), float(low), float(high))


def reliability(answers: Answers) -> list[dict[str, Any]]:
    """Rows by the probability of the class that was said (`calibration.reliability`)."""
    confidence = np.exp(answers.log_probabilities.max(axis=1))
    right = (answers.predicted == answers.targets).astype(float)
    return calibration.reliability(confidence.tolist(), right.tolist())
