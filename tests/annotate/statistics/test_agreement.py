from __future__ import annotations

import time

import numpy as np
import pytest

from annotate.statistics.agreement import (
    METRICS,
    count_ratings,
    fleiss_kappa,
    krippendorff_alpha,
    percent_agreement,
)
from tests.data import known_answer

#: Wikipedia's example, 3 coders x 15 units; 0 stands for a missing rating.
WIKIPEDIA = [
    [0, 0, 0, 0, 0, 3, 4, 1, 2, 1, 1, 3, 3, 0, 3],
    [1, 0, 2, 1, 3, 3, 4, 3, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 2, 1, 3, 4, 4, 0, 2, 1, 1, 3, 3, 0, 4],
]


def counts_of(coders: list[list[int | None]], n_values: int) -> np.ndarray:
    counts = np.zeros((len(coders[0]), n_values), dtype=int)
    for coder in coders:
        for unit, value in enumerate(coder):
            if value:
                counts[unit, value - 1] += 1
    return counts


@pytest.mark.parametrize("metric", METRICS)
def test_alpha_of_krippendorffs_own_example(metric: str) -> None:
    known = known_answer("krippendorff-4coders-12units")
    alpha = krippendorff_alpha(counts_of(known["coders_by_units"], 5), metric=metric)
    assert alpha.value == pytest.approx(known["published"][metric], abs=5e-4)
    assert alpha.value == pytest.approx(known["computed"][metric], abs=1e-7)
    assert (alpha.n_units, alpha.n_ratings) == (11, 40)


@pytest.mark.parametrize(
    ("metric", "value"),
    [("nominal", 0.691), ("ordinal", 0.8067), ("interval", 0.811), ("ratio", 0.8089)],
)
def test_alpha_of_wikipedias_example(metric: str, value: float) -> None:
    alpha = krippendorff_alpha(counts_of(WIKIPEDIA, 4), metric=metric)
    assert alpha.value == pytest.approx(value, abs=5e-4)
    assert alpha.n_ratings == 26


def test_alpha_of_two_coders_and_two_values_by_hand() -> None:
    # Ten units, 0100000010 against 1110010000: six agree, so D_o = 8/20 with o_01 = o_10 = 4;
    # 14 zeros and 6 ones give D_e = 2*14*6/(20*19); alpha = 1 - (0.4 * 380/168) = 2/21.
    rows = "0100000010", "1110010000"
    first, second = (np.array([int(digit) for digit in row]) for row in rows)
    counts = np.stack([2 - first - second, first + second], axis=1)
    assert krippendorff_alpha(counts).value == pytest.approx(2 / 21)


def test_alpha_of_two_coders_and_three_values_equals_the_published_one() -> None:
    known = known_answer("cohen-3x3-abstractors")
    units = []
    for row, line in enumerate(known["table"]):
        for column, n in enumerate(line):
            pair = np.eye(3, dtype=int)[row] + np.eye(3, dtype=int)[column]
            units += [pair] * n
    assert krippendorff_alpha(units).value == pytest.approx(
        known["published"]["krippendorff_alpha"], abs=1e-7
    )
    assert percent_agreement(units) == pytest.approx(known["published"]["percent_agreement"])


def test_percent_agreement_of_krippendorffs_example_equals_the_published_one() -> None:
    known = known_answer("krippendorff-4coders-12units")
    share = percent_agreement(counts_of(known["coders_by_units"], 5))
    assert share == pytest.approx(known["other_published_irrCAC_readme"]["percent_agreement"])


def test_kappa_of_fleiss_own_example() -> None:
    known = known_answer("fleiss-1971-psychiatric-diagnoses")
    assert fleiss_kappa(known["counts"]).value == pytest.approx(0.430, abs=5e-4)


def test_kappa_of_wikipedias_example() -> None:
    rows = "0 0 0 0 14/0 2 6 4 2/0 0 3 5 6/0 3 9 2 0/2 2 8 1 1/7 7 0 0 0/3 2 6 3 0/2 5 3 2 2"
    table = [[int(n) for n in row.split()] for row in f"{rows}/6 5 2 1 0/0 2 2 3 7".split("/")]
    assert fleiss_kappa(table).value == pytest.approx(0.2099, abs=5e-5)


def test_kappa_needs_equally_many_judgments() -> None:
    found = fleiss_kappa([[2, 0], [1, 2]])
    assert found.value is None
    assert "different numbers of judgments" in found.reason


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (np.zeros((0, 4)), "nobody judged what somebody else judged"),
        ([[1, 0], [0, 1]], "nobody judged what somebody else judged"),
        ([[3, 0], [3, 0]], "all judgments are the same"),
    ],
)
def test_without_a_ground_for_chance_there_is_a_reason_instead_of_a_number(
    counts: list[list[int]], reason: str
) -> None:
    for found in (krippendorff_alpha(counts), fleiss_kappa(counts)):
        assert found.value is None
        assert reason in found.reason


def test_units_with_one_rating_change_nothing() -> None:
    counts = counts_of(WIKIPEDIA, 4)
    alone = np.vstack([counts, np.eye(4, dtype=int)])
    assert krippendorff_alpha(alone).value == krippendorff_alpha(counts).value


def test_renaming_the_values_changes_nothing_nominally() -> None:
    counts = counts_of(WIKIPEDIA, 4)
    assert krippendorff_alpha(counts[:, ::-1]).value == pytest.approx(
        krippendorff_alpha(counts).value
    )


def test_perfect_agreement_is_one() -> None:
    assert krippendorff_alpha([[3, 0], [0, 3], [3, 0]]).value == pytest.approx(1.0)


def test_ratings_are_counted_by_unit_and_value() -> None:
    units, counts = count_ratings(["x", "y", "x", "x"], [0, 1, 0, 2], 3)
    assert units == ["x", "y"]
    assert counts.tolist() == [[2, 0, 1], [0, 1, 0]]


def simulated(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """664 units on 115 prompts, three ratings each, mostly of one mind; some prompts are hard."""
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 115, 664)
    hard = rng.random(115) < 0.3
    truth = rng.integers(0, 3, 664)
    counts = np.zeros((664, 4), dtype=int)
    for unit in range(664):
        for _ in range(3):
            right = rng.random() > (0.6 if hard[clusters[unit]] else 0.05)
            counts[unit, truth[unit] if right else rng.integers(0, 3)] += 1
    return counts, clusters


def test_the_interval_holds_the_value_repeats_with_its_seed_and_widens_with_clusters() -> None:
    counts, clusters = simulated()
    found = krippendorff_alpha(counts, clusters=clusters)
    again = krippendorff_alpha(counts, clusters=clusters)
    single = krippendorff_alpha(counts, clusters=np.arange(664))
    assert found.interval is not None
    assert single.interval is not None
    assert found.interval.low < found.value < found.interval.high
    assert found.interval == again.interval
    assert found.interval != krippendorff_alpha(counts, clusters=clusters, seed=1).interval
    width = found.interval.high - found.interval.low
    assert width > single.interval.high - single.interval.low


def test_the_bootstrap_equals_one_that_draws_rows_one_by_one() -> None:
    counts, clusters = simulated()
    rng = np.random.default_rng(5)
    values = []
    for _ in range(400):
        drawn = rng.integers(0, 115, 115)
        rows = np.concatenate([np.flatnonzero(clusters == cluster) for cluster in drawn])
        values.append(krippendorff_alpha(counts[rows]).value)
    slow = np.quantile(values, [0.025, 0.975])
    fast = krippendorff_alpha(counts, clusters=clusters).interval
    assert fast is not None
    assert [fast.low, fast.high] == pytest.approx(list(slow), abs=0.015)


def test_one_prompt_alone_has_no_interval() -> None:
    counts, _ = simulated()
    assert krippendorff_alpha(counts, clusters=np.zeros(664)).interval is None


def test_the_interval_of_664_units_takes_less_than_a_second_of_processor_time() -> None:
    counts, clusters = simulated()
    started = time.process_time()
    krippendorff_alpha(counts, clusters=clusters)
    assert time.process_time() - started < 1
