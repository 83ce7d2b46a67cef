"""What would change the advice, found by asking again with one input changed.

Every input is moved outwards from where it is, over the values below, until another option is
first; where the input is a number, the place where that happens is then halved in on. The nearest
is the one with the least distance, a share of the input's whole range (of a count: of its
logarithm's). An input that is not known has no place to move from: its distance is UNKNOWN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from training.engine.advisor_case import CHANGES, FORMATS, TASKS, Case
from training.engine.advisor_ranking import Option, OtherInput, ranked

#: Distance of an input that is not known, from any value that it may turn out to have.
UNKNOWN = 0.5
#: Halvings between two values: enough to find a count of some thousands to the unit.
HALVINGS = 24


@dataclass(frozen=True)
class Levels:
    """Values of which a case has one, in order; steps between all of them are equally long."""

    values: tuple[Any, ...]
    ordered: bool = True

    def distance(self, was: Any, value: Any) -> float:
        if not self.ordered:
            return 1.0
        return abs(self.values.index(value) - self.values.index(was)) / (len(self.values) - 1)

    def outwards(self, was: Any) -> Iterator[list[Any]]:
        """Values in each direction, from the nearest to the farthest."""
        if was is None or not self.ordered:
            yield [value for value in self.values if value != was]
            return
        place = self.values.index(was)
        yield list(self.values[place + 1 :])
        yield list(reversed(self.values[:place]))


@dataclass(frozen=True)
class Numbers:
    """Numbers from `low` to `high`; by their logarithm where they are counts."""

    low: float
    high: float
    points: int
    log: bool = True
    whole: bool = True

    def place(self, value: float) -> float:
        """0 at `low`, 1 at `high`. A count of 0 is the low end."""
        if not self.log:
            found = (value - self.low) / (self.high - self.low)
        else:
            start = math.log(max(self.low, 1e-12))
            found = (math.log(max(value, self.low, 1e-12)) - start) / (math.log(self.high) - start)
        return found

    def value(self, place: float) -> float:
        if not self.log:
            found = self.low + place * (self.high - self.low)
        else:
            found = self.low * (self.high / self.low) ** place
        return round(found) if self.whole else float(f"{found:.4g}")

    def distance(self, was: float, value: float) -> float:
        return min(1.0, abs(self.place(value) - self.place(was)))

    def outwards(self, was: float | None) -> Iterator[list[float]]:
        grid = [self.value(step / (self.points - 1)) for step in range(self.points)]
        if self.whole and self.log and self.low == 1:
            grid = [0, *grid]
        if was is None:
            yield grid
            return
        yield [value for value in grid if value > was]
        yield [value for value in reversed(grid) if value < was]


#: The inputs that may be changed. The shape of the base is not one: there is no order in bases.
INPUTS: dict[str, Levels | Numbers] = {
    "domain_distance": Numbers(0.0, 1.0, 11, log=False, whole=False),
    "knowledge_changes": Levels(tuple(CHANGES)),
    "consistent_format": Levels(tuple(FORMATS)),
    "labelled_examples": Numbers(1, 1e6, 19),
    "preference_pairs": Numbers(1, 1e6, 19),
    "raw_tokens": Numbers(1, 1e11, 23),
    "device_bytes": Numbers(1e9, 1e12, 16),
    "budget_hours": Numbers(0.01, 10_000, 13, whole=False),
    "private": Levels((False, True)),
    "model_in_house": Levels((False, True)),
    "task": Levels(tuple(TASKS), ordered=False),
}


def nearest_changes(
    case: Case, options: list[Option], methods: Collection[str]
) -> dict[str, OtherInput]:
    """For each option, by name, the nearest change that concerns it (`Option.nearest`)."""
    now = first_of(options)
    nearest: dict[str, OtherInput] = {}
    for change in changes(case, now, methods):
        # the first option is concerned by whatever puts another in its place
        for name in (change.first, now):
            if name is None:
                continue
            known = nearest.get(name)
            if known is None or change.distance < known.distance:
                nearest[name] = change
    return nearest


def changes(case: Case, now: str | None, methods: Collection[str]) -> Iterator[OtherInput]:
    """Every change of one input that was found to put another option first."""

    def first(name: str, value: Any) -> str | None:
        return first_of(ranked(changed(case, name, value), methods))

    for name, kind in INPUTS.items():
        if not bears(case, name):
            continue
        was = getattr(case, name)
        for values in kind.outwards(was):
            seen, before = {now}, was
            for value in values:
                found = first(name, value)
                if found not in seen:
                    seen.add(found)
                    edge = value
                    if isinstance(kind, Numbers) and before is not None:
                        holds = partial(leads, partial(first, name), found)
                        edge = halved(kind, before, value, holds)
                    distance = UNKNOWN if was is None else kind.distance(was, edge)
                    yield OtherInput(name, edge, was, found, distance)
                before = value


def leads(first: Callable[[Any], str | None], wanted: str | None, value: Any) -> bool:
    return first(value) == wanted


def halved(kind: Numbers, before: float, value: float, holds: Callable[[float], bool]) -> float:
    """The value nearest to `before` at which `holds` is true, as it is at `value`."""
    for _ in range(HALVINGS):
        middle = kind.value((kind.place(before) + kind.place(value)) / 2)
        if middle in (before, value) or not min(before, value) < middle < max(before, value):
            break
        if holds(middle):
            value = middle
        else:
            before = middle
    return value


def changed(case: Case, name: str, value: Any) -> Case:
    """The case with another value of one input."""
    if name == "domain_distance":
        return replace(case, domain_distance=value, domain_measured=False)
    return replace(case, **{name: value})


def bears(case: Case, name: str) -> bool:
    """Whether an input can say anything in the case as it is."""
    if name == "device_bytes":
        return case.shape is not None
    return name != "budget_hours" or case.device_tflops is not None


def first_of(options: list[Option]) -> str | None:
    return options[0].name if options[0].possible else None


def undecided(case: Case, nearest: dict[str, OtherInput]) -> list[str]:
    """The inputs that are not known and could decide."""
    names = sorted({each.name for each in nearest.values() if each.was is None})
    return [f"{name} is not known, and could put another option first" for name in names]
