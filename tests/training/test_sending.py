"""The sender of wake-ups: nobody waits for long, and a fork starts afresh."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from training.services.sending import PATIENCE_S, Sender

pytestmark = pytest.mark.alone


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """What a call waits for as if its broker were silent; let go at the end."""
    event = threading.Event()
    yield event
    event.set()


def test_a_call_is_done_before_its_caller_goes_on() -> None:
    sender, done = Sender(), list[int]()
    for number in range(3):
        sender.send(lambda number=number: done.append(number))  # type: ignore[misc]
        assert done[-1] == number


def test_what_a_call_raises_reaches_its_caller_and_the_next_is_done() -> None:
    sender, done = Sender(), list[int]()
    with pytest.raises(ConnectionRefusedError):
        sender.send(refuse)
    sender.send(lambda: done.append(1))
    assert done == [1]


def refuse() -> None:
    raise ConnectionRefusedError


def test_nobody_waits_behind_one_that_hangs(held: threading.Event) -> None:
    sender, done = Sender(), list[int]()
    with pytest.raises(TimeoutError):
        sender.send(held.wait)
    time.sleep(PATIENCE_S / 10)
    for _ in range(100):
        with pytest.raises(TimeoutError, match="has not answered the message before"):
            sender.send(lambda: done.append(1))
    held.set()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            sender.send(lambda: done.append(2))
            break
        except TimeoutError:
            time.sleep(0.01)
    assert done == [2]  # and none of the hundred came after all


def test_a_fork_has_a_thread_of_its_own(held: threading.Event) -> None:
    sender = Sender()
    with pytest.raises(TimeoutError):
        sender.send(held.wait)
    child = os.fork()
    if child == 0:
        try:
            sender.send(lambda: None)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
