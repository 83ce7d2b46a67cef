"""A person's keys on the judging screen: kept with them, so that they are the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from annotate.errors import AnnotateError
from annotate.models import Hotkeys
from rlhf_platform.accounts.models import User

#: What a single key can do, and which key does it at first (static/annotate/keys.js has the same).
FIRST = {
    "left": "1", "right": "2", "tie": "=", "both_bad": "0", "skip": "s", "flag": "f", "undo": "u",
    "diff": "d", "zoom": "z", "guidelines": "g", "help": "?",
}  # fmt: skip
ACTS = {
    "left": "The left answer is better",
    "right": "The right answer is better",
    "tie": "Tie",
    "both_bad": "Both bad",
    "skip": "Skip",
    "flag": "Flag",
    "undo": "Take the last one back",
    "diff": "Mark the words that differ",
    "zoom": "Only the texts, larger",
    "guidelines": "Guidelines",
    "help": "Help",
}


@dataclass(frozen=True)
class Wishes:
    """`keys`: those that are not as they were at first; `kept`: whether the person ever chose."""

    on: bool = True
    pace: bool = True
    keys: dict[str, str] = field(default_factory=dict)
    kept: bool = False

    @property
    def all_keys(self) -> dict[str, str]:
        return FIRST | self.keys


def hotkeys_of(*, user: User) -> Wishes:
    row = Hotkeys.objects.filter(user=user).first()
    return Wishes(row.on, row.pace, row.keys, kept=True) if row is not None else Wishes()


def keep_hotkeys(*, user: User, on: bool, pace: bool, keys: Mapping[str, str]) -> Wishes:
    """What is not in `keys` is as it was at first.

    Raises AnnotateError for an unknown act, for what is not one visible character, and where two
    acts would share a key.
    """
    unknown = sorted(set(keys) - set(FIRST))
    if unknown:
        raise AnnotateError(f"no key does {unknown[0][:40]!r}; known: {', '.join(FIRST)}")
    chosen = {act: key.lower() for act, key in keys.items()}
    for act, key in chosen.items():
        if len(key) != 1 or not key.isprintable() or key.isspace():
            raise AnnotateError(f"the key for “{ACTS[act].lower()}” must be one visible character")
    merged = FIRST | chosen
    for act, key in merged.items():
        other = next(each for each, its in merged.items() if its == key)
        if other != act:
            raise AnnotateError(
                f"{key.upper()} is the key for both “{ACTS[other].lower()}” and "
                f"“{ACTS[act].lower()}”; give one of them another"
            )
    changed = {act: key for act, key in chosen.items() if key != FIRST[act]}
    Hotkeys.objects.update_or_create(user=user, defaults={"on": on, "pace": pace, "keys": changed})
    return Wishes(on, pace, changed, kept=True)
