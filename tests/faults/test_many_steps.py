"""The queue's state machine for thousands of steps; the machine itself: tests/training."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Measured
from tests.training.test_state_machine import take_steps


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.django_db(transaction=True)
def test_no_step_of_ten_thousand_is_illegal(measured: Measured) -> None:
    taken = take_steps(10_000, derandomize=False)
    measured("state machine, 4 actors", f"{taken} steps", "≥ 5,000, all legal")
    assert taken >= 5_000
