"""Figures of an evaluation, worked by hand."""

from __future__ import annotations

import math

import pytest

from training.engine import win_rate
from training.engine.answer_figures import distinct_n, refuses, repeated_share
from training.engine.calibration import calibration_error, confidence_of, reliability
from training.engine.errors import DataError
from training.engine.evaluation import mean_of
from training.engine.human_agreement import (
    against_annotators,
    agreement,
    agreement_bucket,
    by_bucket,
    estimate,
    judged,
    length_bucket,
)
from training.engine.intervals import clustered_correlation


def test_calibration_error_of_four_rows():
    # bin (8/15, 9/15]: confidence 0.55 twice, one right: |0.5 - 0.55| = 0.05, weight 1/2
    # bin (13/15, 14/15]: confidence 0.9 twice, both right: |1 - 0.9| = 0.1, weight 1/2
    bins = reliability([0.55, 0.55, 0.9, 0.9], [1.0, 0.0, 1.0, 1.0])
    assert [b["rows"] for b in bins if b["rows"]] == [2, 2]
    assert calibration_error(bins) == pytest.approx(0.075)


def test_confidence_is_that_of_the_preferred_side():
    assert confidence_of(math.log(3)) == pytest.approx(0.75)
    assert confidence_of(-math.log(3)) == pytest.approx(0.75)
    assert confidence_of(-1000.0) == 1.0


def test_two_people_and_one_person_twice():
    row = [("ann", 1.0), ("ann", 0.5), ("bob", 0.0)]
    # between people: |1-0| -> 0 and |0.5-0| -> 0.5, mean 0.25; ann with herself: 0.5
    assert agreement([row], same_person=False) == [0.25]
    assert agreement([row], same_person=True) == [0.5]
    assert agreement([[("ann", 1.0)]], same_person=False) == [None]


def test_a_ceiling_of_nothing_is_none():
    assert estimate([None, None], ["a", "b"]) is None


def test_buckets_hold_their_rows_alone():
    found = by_bucket([1.0, 0.0, 1.0], ["a", "b", "c"], [["x"], ["x", "y"], ["y", "y"]])
    assert (found["x"]["value"], found["x"]["n"]) == (0.5, 2)
    assert (found["y"]["value"], found["y"]["n"]) == (0.5, 2)
    assert found["x"]["low"] < 0.5 < found["x"]["high"]


def test_each_annotator_is_compared_with_their_own_choices():
    rows = [[("ann", 1.0), ("bob", 0.0)], [("ann", 0.5)]]
    found = against_annotators([2.0, 2.0], rows, ["p", "q"])
    assert found["ann"]["value"] == 0.75
    assert found["bob"]["value"] == 0.0


def test_bucket_names():
    assert [length_bucket(n) for n in (16, 17, 257)] == [
        "1 to 16 tokens", "17 to 64 tokens", "257 tokens and more",
    ]  # fmt: skip
    assert [agreement_bucket(v) for v in (None, 1.0, 0.5, 0.2)] == [
        "judged by one", "all agree", "half or more", "less than half",
    ]  # fmt: skip


@pytest.mark.parametrize("bad", [3, [{"annotator": "a", "choice": "A"}], [{"choice": "tie"}]])
def test_a_judgment_that_is_none_is_refused(bad):
    with pytest.raises(DataError, match="row 1: judgments must be"):
        judged({"judgments": bad}, "row 1")


def test_win_rate_by_scores_counts_ties_half():
    found = win_rate.by_scores([2.0, 1.0, 0.0, 3.0], [1.0, 1.0, 1.0, 1.0], list("abcd"))
    assert (found["value"], found["n"]) == (0.625, 4)  # (1 + 1/2 + 0 + 1) / 4


def test_swapping_old_and_new_mirrors_the_win_rate():
    rows = [{"id": str(n), "choice": c} for n, c in enumerate(["second", "tie", "first", "second"])]
    swap = {"second": "first", "first": "second", "tie": "tie"}
    mirrored = [{**row, "choice": swap[row["choice"]]} for row in rows]
    new, old = win_rate.by_judge(rows)["rate"], win_rate.by_judge(mirrored)["rate"]
    assert new["value"] == 0.625
    assert old["value"] == pytest.approx(1 - new["value"])


def test_failed_judgments_are_counted_and_left_out():
    found = win_rate.by_judge(
        [{"id": "a", "choice": None}, {"id": "b", "choice": "tie", "flipped": True}]
    )
    assert (found["rate"]["n"], found["failed"], found["flipped"]) == (1, 1, 1)
    with pytest.raises(DataError, match="judged row 1"):
        win_rate.by_judge([{"choice": "A"}])


def test_repetition_and_variety():
    # 1 2 1 2 1: bigrams 12 21 12 21, two of four different; all four occur twice
    assert distinct_n([[1, 2, 1, 2, 1]], 2) == 0.5
    assert repeated_share([1, 2, 1, 2, 1], 2) == 1.0
    assert repeated_share([1, 2, 3], 4) == 0.0
    assert distinct_n([[1]], 2) is None


def test_refusals_are_told_by_their_opening():
    assert refuses("I\u2019m sorry, but I can\u2019t help with that.")
    assert not refuses("Mix the paint well. " * 10 + "I cannot stress this enough.")


def test_one_prompt_gives_no_interval_and_none_gives_no_figure_either():
    alone = estimate([1.0, 0.0], ["a", "a"])
    assert (alone["value"], alone["low"], alone["high"], alone["n"]) == (0.5, None, None, 2)
    assert mean_of([3.0], ["a"]) == {"value": 3.0, "low": None, "high": None, "n": 1}
    assert mean_of([], []) == {"value": None, "low": None, "high": None, "n": 0}
    assert clustered_correlation([1.0, 2.0], ["a", "a"])[1:] == (None, None)
