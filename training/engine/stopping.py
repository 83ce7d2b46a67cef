"""The one flag that asks a run to stop: set by signals, read between steps and between passes."""

from __future__ import annotations

import threading

from training.engine.errors import Interrupted

stop_requested = threading.Event()
#: A signal reached this one of several processes; they agree on when to obey it (`distributed`).
asked = threading.Event()
_together = threading.Event()


def take_signals_together() -> None:
    """From here on a signal is only noted, until all processes of the run obey it at one place."""
    _together.set()


def ask_to_stop() -> None:
    """What a signal does."""
    (asked if _together.is_set() else stop_requested).set()


def raise_if_stopped() -> None:
    """Raise Interrupted after a signal. Called between passes that leave the weights alone.

    Measuring can take longer than a supervisor's patience: a run that only looked at the flag
    between optimizer steps would be killed there, with the steps since its last checkpoint.
    """
    if stop_requested.is_set():
        raise Interrupted(
            "stopped between two passes; the next start goes on from the newest checkpoint, "
            "or from the beginning where there is none"
        )
