"""Why a job, or one attempt at it, ended: in words for the person who has to do something."""

from __future__ import annotations

from dataclasses import dataclass

from training.models import Job


@dataclass(frozen=True)
class Advice:
    """What a reason means, and what to do."""

    meaning: str
    todo: str


#: Every reason that `training.services` writes to a job of the engine.
ADVICE: dict[str, Advice] = {
    "oom": Advice(
        "It ran out of memory.",
        "Launch it again with settings that need less, or give the worker more memory.",
    ),
    "preempted": Advice(
        "Its worker was stopped.",
        "Nothing to do: the next worker goes on from its last checkpoint.",
    ),
    "lost": Advice(
        "Its worker stopped giving signs of life.",
        "See that a worker runs (manage.py up, or manage.py worker), and that its machine has "
        "power, memory and a way to the database; then try again: it goes on from its last "
        "checkpoint.",
    ),
    "refused": Advice(
        "The engine refused the settings or the data before training.",
        "The sentence above names what to change. Where it is a setting, launch a new round with "
        "it changed; where it is a file, put it back and try again. Trying again unchanged ends "
        "the same way.",
    ),
    "alarm": Advice(
        "An alarm stopped it before any weights were worth keeping.",
        "The sentence above names the alarm and what helps; launch a new round with that changed. "
        "Trying again unchanged ends the same way.",
    ),
    "bug": Advice(
        "The engine broke.",
        "Read the traceback and the end of the log on the job's page. Trying again helps if the "
        "cause was outside; if it ends the same way twice, it is a fault of ours: report it with "
        "the traceback.",
    ),
    "disk": Advice(
        "The disk had no room, or could not be written.",
        "Make room in the data folder (manage.py prune frees old checkpoints, manage.py doctor "
        "says how much is left), then try again: nothing that was done is lost.",
    ),
    "network": Advice(
        "Another machine did not answer.",
        "See that this machine reaches it (manage.py doctor, then the address in the sentence "
        "above), then try again.",
    ),
    "cancelled": Advice(
        "A person cancelled it.",
        "Nothing to do. Try again if it should go on after all: from its newest checkpoint, or "
        "anew where there is none.",
    ),
}
#: What the same word means where the job is a push to the Hub.
PUSH_ADVICE: dict[str, Advice] = {
    "refused": Advice(
        "The Hub refused the push.",
        "The sentence above names what to change: the repository's name, the token's rights, or "
        "what is pushed. Then push again from the page of the snapshot or the model.",
    ),
    "network": Advice(
        "The Hub did not answer as it should.",
        "Try again later. What was sent already is not sent twice: a push first looks for its own "
        "commit.",
    ),
    "preempted": Advice("Its worker was stopped.", "Nothing to do: the push begins again."),
    "lost": Advice(
        "Its worker stopped giving signs of life.",
        "See that a worker runs (manage.py up, or manage.py worker), then try again: a push first "
        "looks for its own commit, so nothing is pushed twice.",
    ),
    "bug": Advice(
        "The push broke.",
        "The worker's log has the traceback. If it breaks the same way twice, report it with that.",
    ),
    "cancelled": Advice("A person cancelled it.", "Nothing to do. Try again to push after all."),
}
#: … and where it is a measurement of texts.
MEASURE_ADVICE: dict[str, Advice] = {
    "refused": Advice(
        "The texts could not be measured.",
        "The sentence above names what to change: the texts, or the base. Then ask the advisor "
        "again.",
    ),
    "preempted": Advice("Its worker was stopped.", "Nothing to do: the measurement begins again."),
    "lost": Advice(
        "Its worker stopped giving signs of life.",
        "See that a worker runs (manage.py up, or manage.py worker), then try again.",
    ),
    "bug": Advice(
        "The measurement broke.",
        "The worker's log has the traceback. If it breaks the same way twice, report it with that.",
    ),
    "oom": Advice(
        "There was too little memory for the base.", "Ask with a smaller one, or when less runs."
    ),
    "cancelled": Advice("A person cancelled it.", "Nothing to do. Try again to measure after all."),
}
#: What they mean where the job lets a machine judge: nothing of it is stored before it is done.
JUDGE_ADVICE: dict[str, Advice] = ADVICE | {
    "preempted": Advice("Its worker was stopped.", "Nothing to do: nothing is asked twice."),
    "lost": Advice(
        "Its worker stopped giving signs of life.",
        "See that a worker runs (manage.py up, or manage.py worker), then try again: nothing that "
        "was answered is asked twice.",
    ),
    "refused": Advice(
        "The judge did not judge.",
        "The sentence above names what to change. Once the server answers, try again: nothing that "
        "was answered is asked twice, and nothing is stored before all is. For other bounds launch "
        "another judging; it takes along what was answered.",
    ),
    "cancelled": Advice(
        "A person cancelled it.",
        "Nothing of it is stored. Try again if it should go on after all; nothing that was "
        "answered is asked twice.",
    ),
}
UNKNOWN = Advice("It ended without saying why.", "Read the end of the log on the job's page.")


def advice(reason: str, *, kind: str = Job.Kind.RUN) -> Advice:
    """The words for a job's or an attempt's reason."""
    if kind == Job.Kind.JUDGE:
        return JUDGE_ADVICE.get(reason, UNKNOWN)
    others = MEASURE_ADVICE if kind == Job.Kind.MEASURE else PUSH_ADVICE
    found = ADVICE if kind == Job.Kind.RUN else others | {"disk": ADVICE["disk"]}
    return found.get(reason, UNKNOWN)
