"""Settings that need less memory, for a run that had too little.

What there is to change, in which order, the planner knows (`training.engine.planner_changes`). How
many bytes each saves depends on the base, the device and the data, so none is promised.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.engine.config import from_dict, to_dict
from training.engine.errors import ConfigError
from training.engine.planner_changes import kinds


@dataclass(frozen=True)
class Change:
    """One setting of the engine's config: before, after, and what it does."""

    name: str
    before: Any
    after: Any
    why: str
    #: Whether the run comes out the same, to rounding; it only takes longer.
    same_result: bool = False

    @property
    def is_setting(self) -> bool:
        """Whether a stage takes it; the base, and what is trained, are the whole round's."""
        return not self.name.startswith("base.") and self.name != "tuning"


def smaller_settings(config: Mapping[str, Any], device: str = "cpu") -> list[Change]:
    """What to change in an engine config so that the run needs less memory, the gentlest first.

    Of each kind that the planner knows its mildest value. Empty where nothing is left to propose,
    or where the config is not one of this version.
    """
    try:
        asked = from_dict(dict(config))
    except ConfigError:
        return []
    now = to_dict(asked)
    found: dict[str, Change] = {}
    for kind in kinds(asked, device):
        for name, after in kind.values[0].items():
            found[name] = Change(name, value_of(now, name), after, kind.why, kind.same_result)
    return list(found.values())


def value_of(config: Mapping[str, Any], name: str) -> Any:
    """The value of a dotted setting."""
    place: Any = config
    for part in name.split("."):
        place = place[part]
    return place


def first_step(changes: list[Change]) -> list[Change]:
    """What to try first: all that leaves the result as it is; where nothing does, all there is."""
    return [change for change in changes if change.same_result] or changes


def stage_name(stage: str) -> str:
    """The section of a round's settings that a stage reads."""
    return "sample" if stage.startswith("sample") else stage


def with_changes(
    settings: Mapping[str, Any], *, stage: str, changes: list[Change]
) -> dict[str, Any]:
    """A round's settings with the changes laid over the section of one stage, ready to launch."""
    found = copy.deepcopy({k: v for k, v in settings.items() if k != "reward_given"})
    section = found.setdefault(stage_name(stage), {}) or {}
    found[stage_name(stage)] = section
    for change in changes:
        if change.is_setting:
            *parents, last = change.name.split(".")
            place = section
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = change.after
    return found


def set_arguments(*, stage: str, changes: list[Change]) -> list[str]:
    """The same changes as arguments of `manage.py launch_round`."""
    return [
        f"--set {stage_name(stage)}.{change.name}={json.dumps(change.after)}"
        for change in changes
        if change.is_setting
    ]
