"""What to launch instead of a run that had too little memory, ready to paste."""

from __future__ import annotations

import json
from dataclasses import dataclass

from training.models import Run
from training.services.smaller import (
    Change,
    first_step,
    set_arguments,
    smaller_settings,
    with_changes,
)


@dataclass(frozen=True)
class Pasted:
    """Settings for the launch form (or the API), and the same for the command line."""

    settings: str
    arguments: str


@dataclass(frozen=True)
class Proposal:
    """All changes that need less memory, the gentlest first."""

    changes: list[Change]
    first: Pasted
    #: Whether the first step leaves the result as it is, to rounding.
    gentle: bool
    #: Every change at once; None where the first step holds them all.
    all_at_once: Pasted | None


def smaller_proposal(run: Run) -> Proposal | None:
    """None where nothing is left to make smaller."""
    changes = smaller_settings(run.config)
    settable = [change for change in changes if change.is_setting]
    if not settable:
        return None
    first = first_step(settable)
    return Proposal(
        changes=changes,
        first=pasted(run, first),
        gentle=all(change.same_result for change in first),
        all_at_once=pasted(run, settable) if first != settable else None,
    )


def pasted(run: Run, changes: list[Change]) -> Pasted:
    if run.round is not None:
        settings = with_changes(run.round.config, stage=run.stage, changes=changes)
        arguments = set_arguments(stage=run.stage, changes=changes)
    else:  # a sampling of its own has no stages, and its command fewer settings
        settings = with_changes({}, stage="sample", changes=changes)["sample"]
        name = "sample.max_new_tokens"
        arguments = [f"--max-new-tokens {c.after}" for c in changes if c.name == name]
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    return Pasted(settings=text, arguments=" ".join(arguments))
