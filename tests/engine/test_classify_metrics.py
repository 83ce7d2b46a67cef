"""Figures of a classifier against tables worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk

from training.engine.classify_metrics import Answers, figures
from training.engine.intervals import share_interval, wilson

TARGETS = "aaaabbbccc"
#: a: 3 of 4 right; b: 2 of 3; c: 1 of 3.
PREDICTED = "aaabbbacab"
#: Five rows in the bin (11/15, 12/15], 4 of them right; five in (8/15, 9/15], 2 right.
CONFIDENCE = [0.75] * 5 + [0.55] * 5


def answers(
    targets: str,
    predicted: str,
    confidence: Sequence[float],
    labels: str = "abc",
    texts: Sequence[str] | None = None,
) -> Answers:
    """Each row's class gets its confidence, the others share the rest; logits may be shifted."""
    k = len(labels)
    table = np.empty((len(targets), k))
    for number, (said, sure) in enumerate(zip(predicted, confidence, strict=True)):
        table[number] = math.log((1.0 - sure) / (k - 1))
        table[number, labels.index(said)] = math.log(sure)
    return Answers(
        logits=table + np.arange(len(targets))[:, None],
        targets=np.array([labels.index(each) for each in targets]),
        texts=texts or [str(number) for number in range(len(targets))],
        labels=list(labels),
    )


def by_class(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["label"]: each for each in found["per_class"]}


def test_every_figure_is_what_it_is_by_hand() -> None:
    metrics, found = figures(answers(TARGETS, PREDICTED, CONFIDENCE), majority=0)
    assert found["confusion"] == [[3, 1, 0], [1, 2, 0], [1, 1, 1]]
    assert metrics["classify/accuracy"] == pytest.approx(6 / 10)
    assert metrics["classify/majority"] == pytest.approx(4 / 10)
    assert found["majority"]["label"] == "a"
    rows = by_class(found)
    wanted = {  # precision, recall, F1 = 2 TP / (said + rows of the class)
        "a": (3 / 5, 3 / 4, 6 / 9),
        "b": (2 / 4, 2 / 3, 4 / 7),
        "c": (1 / 1, 1 / 3, 2 / 4),
    }
    for label, three in wanted.items():
        assert [rows[label][n] for n in ("precision", "recall", "f1")] == pytest.approx(three)
    assert [rows[label]["support"] for label in "abc"] == [4, 3, 3]
    assert [rows[label]["predicted"] for label in "abc"] == [5, 4, 1]
    assert metrics["classify/macro_f1"] == pytest.approx((6 / 9 + 4 / 7 + 2 / 4) / 3)
    # right at .75 four times and wrong once, where the label shares .25 with another class;
    # right at .55 twice and wrong three times
    nats = 4 * -math.log(0.75) - math.log(0.125) + 2 * -math.log(0.55) + 3 * -math.log(0.225)
    assert metrics["classify/log_loss"] == pytest.approx(nats / 10)
    # 5/10 · |4/5 − .75| + 5/10 · |2/5 − .55|
    assert metrics["classify/ece"] == pytest.approx(0.1)
    full = [b for b in found["calibration"]["bins"] if b["rows"]]
    assert [(b["rows"], b["accuracy"]) for b in full] == [(5, 0.4), (5, 0.8)]
    assert [b["confidence"] for b in full] == pytest.approx([0.55, 0.75])
    assert full[0]["above"] == pytest.approx(8 / 15)


@pytest.mark.parametrize("classes", [2, 5])
def test_every_figure_is_scikit_learns(classes: int) -> None:
    """Of random answers in which the last class is never right and one more is never there."""
    draw = np.random.default_rng(classes)
    logits = draw.normal(size=(60, classes + 2)) * 2.0
    logits[:, -1] = -30.0
    targets = draw.integers(0, classes, size=60)
    targets[:2] = classes + 1  # never said; class `classes` may be said, and is never there
    found = Answers(
        logits=logits,
        targets=targets,
        texts=[str(n) for n in range(60)],
        labels=[f"c{n}" for n in range(classes + 2)],
    )
    metrics, more = figures(found, majority=0)
    said, numbers = found.predicted, list(range(classes + 2))
    shown = sorted({*targets.tolist(), *said.tolist()})
    assert metrics["classify/accuracy"] == pytest.approx(sk.accuracy_score(targets, said))
    wanted = sk.f1_score(targets, said, labels=shown, average="macro", zero_division=0.0)
    assert metrics["classify/macro_f1"] == pytest.approx(wanted)
    probabilities = np.exp(found.log_probabilities)
    assert metrics["classify/log_loss"] == pytest.approx(
        sk.log_loss(targets, probabilities, labels=numbers)
    )
    assert more["confusion"] == sk.confusion_matrix(targets, said, labels=numbers).tolist()
    table = sk.precision_recall_fscore_support(targets, said, labels=numbers, zero_division=np.nan)
    for name, column in zip(("precision", "recall", "f1", "support"), table, strict=True):
        own = [np.nan if each[name] is None else each[name] for each in more["per_class"]]
        np.testing.assert_allclose(own, column, err_msg=name)


def test_every_share_has_an_interval_around_it() -> None:
    metrics, found = figures(answers(TARGETS, PREDICTED, CONFIDENCE), majority=0)
    for name in ("accuracy", "macro_f1", "log_loss", "majority"):
        low, high = metrics[f"classify/{name}_low"], metrics[f"classify/{name}_high"]
        assert low < metrics[f"classify/{name}"] < high
    for each in found["per_class"]:
        for name in ("precision", "recall", "f1"):
            low, high = each[f"{name}_low"], each[f"{name}_high"]
            assert (low is None) == (name == "precision" and each["predicted"] == 1)  # one text
            assert low is None or low <= each[name] <= high
        assert each["recall_high"] - each["recall_low"] > 0.3  # three or four rows tell little


def test_wilsons_interval_is_the_published_one() -> None:
    # 6 of 10 (0.3127 to 0.8318), 10 of 10 (0.7225 to 1): Wilson 1927 without correction
    assert wilson(0.6, 10) == pytest.approx((0.3127, 0.8318), abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert share_interval([True] * 10, [str(n) for n in range(10)])[1] < 0.73


def test_rows_of_one_text_are_one_piece_of_evidence() -> None:
    hits = [True, False] * 20
    alone = share_interval(hits, [str(n) for n in range(40)])
    copies = share_interval(hits, [str(n % 4) for n in range(40)])
    assert alone[0] == copies[0] == 0.5
    assert copies[2] - copies[1] > 2 * (alone[2] - alone[1])


def test_classes_that_are_never_said_or_never_there() -> None:
    # b is there and never said; d is neither: it has no F1 and is left out of the mean
    metrics, found = figures(answers("aabbc", "aaaac", [0.7] * 5, labels="abcd"), majority=2)
    rows = by_class(found)
    assert rows["b"]["precision"] is None
    assert (rows["b"]["recall"], rows["b"]["f1"]) == (0.0, 0.0)
    assert [rows["d"][name] for name in ("precision", "recall", "f1", "f1_low")] == [None] * 4
    # F1 of a: 2 · 2 / (4 + 2)
    assert metrics["classify/macro_f1"] == pytest.approx((4 / 6 + 0.0 + 1.0) / 3)
    assert metrics["classify/majority"] == pytest.approx(1 / 5)


def test_logits_that_overflow_in_probabilities_keep_their_loss() -> None:
    found = Answers(np.array([[2000.0, 0.0], [0.0, 2000.0]]), np.array([1, 1]), ["1", "2"], "ab")
    metrics, _ = figures(found, majority=0)
    assert metrics["classify/log_loss"] == pytest.approx(1000.0)
    assert metrics["classify/ece"] == pytest.approx(0.5)
