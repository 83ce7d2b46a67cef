"""A machine's judgments against people's: figures worked by hand."""

from __future__ import annotations

import pytest

from annotate.statistics.agreement import cohen_kappa
from annotate.statistics.calibration import Judged, calibrate


def judged(
    n: int, person: str, machine: str, *, places: tuple[str, str] = ("", ""), longer: str = ""
) -> list[Judged]:
    a_first, b_first = places if places[0] else (machine, machine)
    return [
        Judged(f"{person}{machine}{longer}{i}", person, machine, a_first, b_first, longer)
        for i in range(n)
    ]


def test_agreement_and_cohens_kappa() -> None:
    # Cohen's table of two raters over a and b: 20 aa, 5 ab, 10 ba, 15 bb.
    # observed 35/50 = 0.7; chance (25·30 + 25·20) / 2500 = 0.5; kappa = 0.2 / 0.5 = 0.4
    rows = judged(20, "a", "a") + judged(5, "a", "b") + judged(10, "b", "a") + judged(15, "b", "b")
    found = calibrate(rows)
    assert found.agreement.value == pytest.approx(0.7)
    assert found.kappa.value == pytest.approx(0.4)
    assert found.kappa.value == pytest.approx(cohen_kappa([(r.person, r.machine) for r in rows]))
    assert found.agreement.low is not None
    assert found.agreement.low < 0.7 < (found.agreement.high or 0.0)
    # the standard error of a share of 50 is √(0.7·0.3/50) = 0.065
    assert found.agreement.low == pytest.approx(0.7 - 1.96 * 0.065, abs=0.04)
    assert found.agreement.n == found.kappa.n == 50


def test_place_is_told_from_preference() -> None:
    # 3 follow the place (a_first a, b_first b), 1 prefers A in both: 2·3 + 1 of 8 verdicts
    rows = judged(3, "a", "tie", places=("a", "b")) + judged(1, "a", "a", places=("a", "a"))
    found = calibrate(rows)
    assert found.first_place.value == pytest.approx(7 / 8)
    assert found.first_place.n == 8
    assert found.decided.n == 1


def test_length_is_compared_with_people_on_the_same_rows() -> None:
    rows = (
        judged(6, "a", "a", longer="a")  # both prefer the longer
        + judged(3, "b", "a", longer="a")  # the machine alone does
        + judged(1, "a", "b", longer="a")  # people alone do
        + judged(5, "tie", "a", longer="a")  # people chose none: not counted
        + judged(5, "a", "a")  # equally long: not counted
    )
    found = calibrate(rows)
    assert found.machine_longer.value == pytest.approx(0.9)
    assert found.person_longer.value == pytest.approx(0.7)
    assert found.longer_difference.value == pytest.approx(0.2)
    assert found.machine_longer.n == found.longer_difference.n == 10


def test_what_nothing_defines_has_no_value() -> None:
    assert calibrate([]).agreement.value is None
    same = calibrate(judged(5, "a", "a"))
    assert same.agreement.value == 1.0
    assert same.kappa.value is None
    assert same.machine_longer.value is None
