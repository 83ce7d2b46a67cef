from __future__ import annotations

import numpy as np
import pytest

from annotate.statistics.agreement import (
    alpha_with_interval,
    cohen_kappa,
    counts_table,
    fleiss_kappa,
    nominal_alpha,
    pairwise_agreement,
)
from tests.data import known_answer


def units_of(coders: list[list[int | None]]) -> list[list[int]]:
    return [[value for value in unit if value is not None] for unit in zip(*coders, strict=True)]


def test_alpha_of_krippendorffs_own_example_with_missing_values() -> None:
    known = known_answer("krippendorff-4coders-12units")
    alpha = nominal_alpha(counts_table(units_of(known["coders_by_units"])))
    assert alpha == pytest.approx(0.743, abs=5e-4)
    assert alpha == pytest.approx(known["published"]["nominal"], abs=5e-4)
    assert alpha == pytest.approx(known["computed"]["nominal"], abs=1e-7)


def test_alpha_of_wikipedias_example() -> None:
    rows = [
        [None, None, None, None, None, 3, 4, 1, 2, 1, 1, 3, 3, None, 3],
        [1, None, 2, 1, 3, 3, 4, 3, None, None, None, None, None, None, None],
        [None, None, 2, 1, 3, 4, 4, None, 2, 1, 1, 3, 3, None, 4],
    ]
    assert nominal_alpha(counts_table(units_of(rows))) == pytest.approx(0.691, abs=5e-4)


def test_alpha_of_two_coders_and_two_values_by_hand() -> None:
    # Ten units, 0100000010 against 1110010000: six agree, so D_o = 8/20 with o_01 = o_10 = 4;
    # 14 zeros and 6 ones give D_e = 2*14*6/(20*19); alpha = 1 - (0.4 * 380/168) = 2/21.
    units = list(zip("0100000010", "1110010000", strict=True))
    assert nominal_alpha(counts_table(units)) == pytest.approx(2 / 21)


def abstractors() -> list[tuple[int, int]]:
    table = known_answer("cohen-3x3-abstractors")["table"]
    pairs = []
    for row, line in enumerate(table):
        for column, n in enumerate(line):
            pairs += [(row, column)] * n
    return pairs


def test_alpha_and_cohens_kappa_of_two_abstractors_equal_the_published_ones() -> None:
    published = known_answer("cohen-3x3-abstractors")["published"]
    alpha = nominal_alpha(counts_table(abstractors()))
    assert alpha == pytest.approx(published["krippendorff_alpha"], abs=1e-7)
    assert cohen_kappa(abstractors()) == pytest.approx(published["cohen_kappa"], abs=1e-6)


def test_kappa_of_fleiss_own_example() -> None:
    counts = np.array(known_answer("fleiss-1971-psychiatric-diagnoses")["counts"], dtype=float)
    assert fleiss_kappa(counts) == pytest.approx(0.430, abs=5e-4)


def test_kappa_of_wikipedias_example() -> None:
    rows = "0 0 0 0 14/0 2 6 4 2/0 0 3 5 6/0 3 9 2 0/2 2 8 1 1/7 7 0 0 0/3 2 6 3 0/2 5 3 2 2"
    table = [[float(n) for n in row.split()] for row in f"{rows}/6 5 2 1 0/0 2 2 3 7".split("/")]
    assert fleiss_kappa(np.array(table)) == pytest.approx(0.2099, abs=5e-5)


@pytest.mark.parametrize(
    "table",
    [
        np.zeros((0, 4)),
        np.array([[1.0, 0], [0, 1]]),  # one value each
        np.array([[2.0, 0], [1, 2]]),  # different numbers of values
        np.array([[3.0, 0], [3, 0]]),  # one value in all
    ],
)
def test_fleiss_kappa_is_undefined_without_a_ground_for_chance(table: np.ndarray) -> None:
    assert fleiss_kappa(table) is None


def test_cohens_kappa_is_undefined_without_a_ground_for_chance() -> None:
    assert cohen_kappa([]) is None
    assert cohen_kappa([("a", "a"), ("a", "a")]) is None
    # Chance agreement of two people who each always say one thing is 0, and so is theirs.
    assert cohen_kappa([("a", "b"), ("a", "b")]) == 0


def test_units_with_one_value_change_nothing() -> None:
    units = [["a", "b"], ["a", "a"], ["b", "b"]]
    assert nominal_alpha(counts_table([*units, ["a"], ["c"]])) == nominal_alpha(counts_table(units))


def test_renaming_the_values_changes_nothing() -> None:
    units = [["a", "b"], ["a", "a"], ["b", "b"], ["tie", "a"]]
    renamed = [[{"a": "z", "b": "a", "tie": "m"}[value] for value in unit] for unit in units]
    assert nominal_alpha(counts_table(renamed)) == pytest.approx(nominal_alpha(counts_table(units)))


def test_perfect_agreement_is_one() -> None:
    assert nominal_alpha(counts_table([["a", "a"], ["b", "b"]])) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("units", "reason"),
    [
        ([], "there are no judgments yet"),
        ([["a"], ["b"]], "nothing was judged by two people yet"),
        ([["a", "a"], ["a", "a"]], "everyone always gave the same answer"),
    ],
)
def test_alpha_that_is_undefined_says_why(units: list[list[str]], reason: str) -> None:
    found = alpha_with_interval(units, list(range(len(units))))
    assert (found.value, found.low, found.high) == (None, None, None)
    assert reason in found.reason


def test_an_interval_that_cannot_be_told_says_why_and_alpha_stays() -> None:
    one_prompt = alpha_with_interval([["a", "b"], ["a", "a"]], ["p", "p"])
    assert one_prompt.value == pytest.approx(0)
    assert (one_prompt.low, one_prompt.high) == (None, None)
    assert "all answers are about one prompt" in one_prompt.reason
    # Of two prompts one alone has a second value: a quarter of the samples never draws it.
    rare = alpha_with_interval([["a", "a"], ["a", "b"]], ["p", "q"])
    assert rare.value is not None
    assert (rare.low, rare.high) == (None, None)
    assert "too few prompts have different answers" in rare.reason


def simulated() -> tuple[list[list[int]], list[int]]:
    """664 units on 115 prompts, three values each, mostly of one mind; some prompts are hard."""
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 115, 664)
    hard = rng.random(115) < 0.3
    units = []
    for cluster in clusters:
        truth = int(rng.integers(0, 3))
        right = rng.random(3) > (0.6 if hard[cluster] else 0.05)
        units.append([truth if sure else int(rng.integers(0, 3)) for sure in right])
    return units, clusters.tolist()


def test_the_interval_holds_the_value_repeats_with_its_seed_and_widens_with_clusters() -> None:
    units, clusters = simulated()
    found = alpha_with_interval(units, clusters)
    single = alpha_with_interval(units, list(range(664)))
    assert found.low < found.value < found.high  # type: ignore[operator]
    assert found == alpha_with_interval(units, clusters)
    assert found != alpha_with_interval(units, clusters, seed=1)
    assert found.high - found.low > single.high - single.low  # type: ignore[operator]


def test_the_bootstrap_equals_one_that_draws_units_one_by_one() -> None:
    units, clusters = simulated()
    table, cluster_of = counts_table(units), np.array(clusters)
    rng = np.random.default_rng(5)
    values = []
    for _ in range(400):
        drawn = rng.integers(0, 115, 115)
        rows = np.concatenate([np.flatnonzero(cluster_of == cluster) for cluster in drawn])
        values.append(nominal_alpha(table[rows]))
    slow = np.quantile(np.array(values, dtype=float), [0.025, 0.975])
    fast = alpha_with_interval(units, clusters)
    assert [fast.low, fast.high] == pytest.approx(list(slow), abs=0.015)


def test_every_two_annotators_are_compared_on_what_both_judged() -> None:
    answers = [
        ("ann", 1, "a"), ("ben", 1, "a"), ("cat", 1, "b"),
        ("ann", 2, "a"), ("ben", 2, "b"),
        ("ann", 3, "b"), ("ben", 3, "b"),
    ]  # fmt: skip
    found = pairwise_agreement(answers)
    assert list(found) == [("ann", "ben"), ("ann", "cat"), ("ben", "cat")]
    pair = found["ann", "ben"]
    assert (pair.share, pair.n) == (pytest.approx(2 / 3), 3)
    # P_o = 2/3; ann says a twice and b once, ben the reverse: P_e = (2*1 + 1*2)/9 = 4/9.
    assert pair.kappa == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
