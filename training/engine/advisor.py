"""Which way to adapt a model suits a case: options in order, each with its reasons.

`advise(case)` is what services call. The options are graded by `advisor_ranking`; what would change
the advice is found by asking again with other inputs (`advisor_changes`). No torch is imported,
nothing is loaded or downloaded, and no file is opened.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from training.engine.advisor_case import Case
from training.engine.advisor_changes import nearest_changes, undecided
from training.engine.advisor_ranking import Option, ranked
from training.engine.advisor_rules import LEAST_EXAMPLES
from training.engine.config import METHODS


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The options for a case, the best first."""

    case: Case
    options: list[Option]
    notes: list[str] = field(default_factory=list)
    """Contradictions in the case, and what would be worth knowing."""

    @property
    def first(self) -> Option | None:
        """The option to take; None where none can be done."""
        return self.options[0] if self.options and self.options[0].possible else None

    def option(self, name: str) -> Option:
        return next(option for option in self.options if option.name == name)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, for the command line and the API."""
        return {
            "case": self.case.as_json(),
            "first": self.first.name if self.first else None,
            "options": [option.as_json() for option in self.options],
            "notes": self.notes,
        }


def advise(case: Case, *, methods: Collection[str] = METHODS) -> Advice:
    """The options in order, with what would change that order.

    methods: those that the engine can run; by default what it knows.
    """
    options = ranked(case, methods)
    changes = nearest_changes(case, options, methods)
    with_changes = [replace(option, nearest=changes.get(option.name)) for option in options]
    notes = [*contradictions(case, options), *undecided(case, changes)]
    return Advice(case=case, options=with_changes, notes=notes)


def contradictions(case: Case, options: list[Option]) -> list[str]:
    """What does not go together in the case, and what was passed over."""
    found = []
    if not any(option.possible for option in options):
        found.append("nothing can be done with these inputs; what rules each option out is said")
    if case.budget_hours is not None and case.device_tflops is None:
        found.append("the budget was passed over: device_tflops is not given, so no time is known")
    if case.device_bytes is not None and case.shape is None:
        found.append(
            "the memory was passed over: give the base's config.json (base_config, or --base)"
        )
    if case.private and not case.model_in_house:
        found.append(
            "the data may not leave the house, and the model is outside it: take an open model"
        )
    pairs = case.preference_pairs
    if case.task == "preference" and pairs is not None and pairs < LEAST_EXAMPLES:
        found.append("the task is about preferences, and there are no pairs: collect some first")
    if case.task == "knowledge" and case.raw_tokens == 0:
        found.append("the task is about knowledge, and there is no text that holds it")
    if case.task == "knowledge" and case.knowledge_changes in ("weekly", "daily"):
        found.append("what is trained into weights is out of date before the next training")
    large = case.shape is not None and case.shape.decoder and case.shape.parameters >= 10**9
    if case.task == "classification" and large:
        found.append(
            "for labels alone an encoder below a billion parameters, fine-tuned whole, is often as "
            "good as a large base, at a hundredth of the cost"
        )
    return found
