"""Annotators whose answers say more than chance count for more."""

from __future__ import annotations

import pytest

from annotate.statistics.reliability import LEAST, relative_reliability

TRUTH = ["a", "b"] * 20


def answers(**people: list[str]) -> list[tuple[str, int, str]]:
    return [
        (person, unit, value)
        for person, given in people.items()
        for unit, value in enumerate(given)
    ]


def opposite(values: list[str]) -> list[str]:
    return ["b" if value == "a" else "a" for value in values]


def test_who_follows_chance_counts_for_less() -> None:
    # Anna and Ben say what is true on 40 units; Carl on 20 of them, else the opposite. Both values
    # are equally frequent, so e = 1/2. Of 240 ordered pairs of answers 160 agree: the average is
    # 2/3. Anna agrees in 40 + 20 of 80: (60 + 20·2/3)/100 = .7333, (.7333 - .5)/(2/3 - .5) = 1.4;
    # Carl in 40 of 80: (40 + 20·2/3)/100 = .5333 and .2.
    carl = TRUTH[:20] + opposite(TRUTH[20:])
    found = relative_reliability(answers(anna=TRUTH, ben=TRUTH, carl=carl))
    assert found == pytest.approx({"anna": 1.4, "ben": 1.4, "carl": 0.2})


def test_nobody_counts_for_nothing() -> None:
    found = relative_reliability(answers(a=TRUTH, b=TRUTH, c=TRUTH, d=opposite(TRUTH), e=TRUTH))
    assert found["d"] == LEAST
    assert found["a"] > 1.0


def test_little_evidence_moves_little() -> None:
    few = relative_reliability(
        [*answers(anna=TRUTH, ben=TRUTH), ("dora", 0, "b"), ("dora", 1, "b")]
    )
    many = relative_reliability(answers(anna=TRUTH, ben=TRUTH, dora=["b"] * 40))
    assert many["dora"] < few["dora"] < 1.0


@pytest.mark.parametrize(
    "given",
    [
        [],
        [("anna", 1, "a"), ("ben", 2, "b")],  # nothing was judged twice
        [("anna", 1, "a"), ("ben", 1, "a")],  # chance agreement is undefined
        [("anna", 1, "a"), ("ben", 1, "b")],  # agreement below chance: nobody can be told apart
    ],
)
def test_where_nothing_can_be_told_everyone_counts_the_same(
    given: list[tuple[str, int, str]],
) -> None:
    assert relative_reliability(given) == {person: 1.0 for person, _, _ in given}


def test_someone_alone_among_others_counts_as_the_average() -> None:
    found = relative_reliability([*answers(anna=TRUTH, ben=TRUTH), ("eve", 99, "a")])
    assert found["eve"] == pytest.approx(1.0)
