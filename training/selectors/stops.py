"""What ended a run before its last step, in words for people: an alarm, or PPO's KL budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.engine.alarms import RULES
from training.engine.config import ONLINE_METHODS
from training.models import Run


@dataclass(frozen=True)
class Stop:
    """Why a run ended early, part by part; a part that its result does not tell is empty."""

    run: Run
    #: What stopped it, to follow "Stopped by".
    by: str
    #: After how much: "after 5 updates".
    after: str
    why: str
    #: Which weights were kept, as a sentence.
    kept: str
    remedy: str


def run_stops(runs: Sequence[Run]) -> list[Stop]:
    """What stopped those of the runs that ended early."""
    return [stop for run in runs if (stop := run_stop(run)) is not None]


def run_stop(run: Run) -> Stop | None:
    """What stopped the run; None where its result names nothing that did.

    A result is what its engine wrote, maybe another version's: a part that is not what it should
    be is left out.
    """
    stopped = (run.result or {}).get("stopped")
    if not isinstance(stopped, dict):
        return None
    if stopped.get("by") == "kl_budget":
        return budget_stop(run, stopped)
    return alarm_stop(run, stopped) if "name" in stopped else None


def budget_stop(run: Run, stopped: dict[str, Any]) -> Stop:
    """`ppo.kl_budget` ended it (training.engine.kl_budget), which is no alarm and rings none."""
    return Stop(
        run=run,
        by="its KL budget, ppo.kl_budget",
        after=after(run, count(stopped, "after_updates")),
        why=text(stopped, "why"),
        kept=kept_words(
            run,
            count(stopped, "kept_updates"),
            nothing="The weights that it started from are kept.",
        ),
        remedy=f"{RULES['kl_budget'].remedy} A higher ppo.kl_budget lets it go further.",
    )


def alarm_stop(run: Run, stopped: dict[str, Any]) -> Stop:
    """An alarm that was to stop it rang; its own words say what it saw and what helps."""
    return Stop(
        run=run,
        by=f"the alarm {text(stopped, 'name').replace('_', ' ')}",
        after=after(run, count(stopped, "step")),
        why=text(stopped, "message"),
        kept=kept_words(
            run,
            count(stopped, "kept_step"),
            nothing="Nothing from before it was worth keeping: no weights were saved.",
        ),
        remedy=text(stopped, "remedy"),
    )


def after(run: Run, points: int | None) -> str:
    return f"after {of_points(run, points)}" if points is not None else ""


def kept_words(run: Run, points: int | None, *, nothing: str) -> str:
    if points is None:
        return ""
    return f"The weights after {of_points(run, points)} are kept." if points else nothing


def of_points(run: Run, points: int) -> str:
    """A number of points: updates where the policy answers prompts, else optimizer steps."""
    unit = "update" if run.method in ONLINE_METHODS else "optimizer step"
    return f"{points} {unit}{'' if points == 1 else 's'}"


def count(stopped: dict[str, Any], name: str) -> int | None:
    value = stopped.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(stopped: dict[str, Any], name: str) -> str:
    value = stopped.get(name)
    return value if isinstance(value, str) else ""
