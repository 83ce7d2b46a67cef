from __future__ import annotations

import pytest

from annotate.statistics.intervals import wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (0, 0, 0.0, 1.0),
        # Wilson's formula by hand: centre (0.5 + z²/200) / (1 + z²/100) = 0.5.
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_the_wilson_interval_of_known_shares(
    successes: int, n: int, low: float, high: float
) -> None:
    found_low, found_high = wilson(successes, n)
    assert found_low == pytest.approx(low, abs=5e-5)
    assert found_high == pytest.approx(high, abs=5e-5)


def test_the_ends_are_exact() -> None:
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0


def test_swapping_success_and_failure_mirrors_the_interval() -> None:
    one, other = wilson(3, 17), wilson(14, 17)
    assert one[0] == pytest.approx(1 - other[1])
    assert one[1] == pytest.approx(1 - other[0])


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 5)])
def test_an_impossible_share_is_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        wilson(successes, n)
