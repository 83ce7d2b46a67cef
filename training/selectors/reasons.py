"""Why a job ended, in words for the person who has to do something about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """What a reason means, and what to do."""

    meaning: str
    todo: str


ADVICE: dict[str, Advice] = {
    "oom": Advice(
        "It ran out of memory.",
        "Launch a round with a smaller row_budget or batch size, or give the worker more memory.",
    ),
    "refused": Advice(
        "The engine refused the settings or the data before training.",
        "The sentence above names what to change; launch a new round with it changed.",
    ),
    "disk": Advice(
        "The run folder could not be written.",
        "Free space in the data folder, then try again: nothing that was done is lost.",
    ),
    "lost": Advice(
        "Its worker stopped giving signs of life.",
        "Check that a worker runs (manage.py up, or manage.py worker), then try again: "
        "it goes on from its last checkpoint.",
    ),
    "preempted": Advice(
        "Its worker was stopped.", "Nothing to do: it goes on from its last checkpoint."
    ),
    "cancelled": Advice("A person cancelled it.", "Try again to go on from its last checkpoint."),
    "bug": Advice(
        "The engine broke.",
        "Read the end of the log on the run's page; trying again helps if the cause was outside.",
    ),
}
UNKNOWN = Advice("It ended without saying why.", "Read the end of the log on the run's page.")


def advice(reason: str) -> Advice:
    return ADVICE.get(reason, UNKNOWN)
