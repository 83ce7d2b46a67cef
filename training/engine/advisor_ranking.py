"""The advisor's options for a case, graded and put in order (`advisor` adds what would change it).

A score is the weighted mean of an option's grades, 0 to 3, under every factor that the case says
something about (`advisor_rules`), as a percentage of the best. What cannot be done stands at the
end, with what rules it out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from training.engine.advisor_case import Case
from training.engine.advisor_presets import (
    Stage,
    least_hours,
    missing_methods,
    over_budget,
    stages,
)
from training.engine.advisor_rules import (
    FACTORS,
    LEAST_EXAMPLES,
    LEAST_ROWS,
    OPTIONS,
    PREFERENCE,
    RETRIEVES,
    SUPERVISED,
    TABLE,
    cell,
    source_of,
)
from training.engine.config import METHODS

#: The highest grade.
BEST = 3.0
#: Where a reason that rules an option out comes from.
PLANNER = "the memory planner"
ENGINE = "what the engine can do"
ARITHMETIC = "operations counted by the planner, at the speed given"


@dataclass(frozen=True)
class Reason:
    """What one factor says of an option. Its share of the score is grade · weight."""

    factor: str
    says: str
    grade: float
    weight: float
    source: str

    def as_json(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "says": self.says,
            "grade": round(self.grade, 3),
            "weight": self.weight,
            "source": self.source,
        }


@dataclass(frozen=True)
class Block:
    """Why an option cannot be done."""

    factor: str
    says: str
    source: str

    def as_json(self) -> dict[str, str]:
        return {"factor": self.factor, "says": self.says, "source": self.source}


@dataclass(frozen=True)
class OtherInput:
    """One input that was changed, and which option is first then; found by trying."""

    name: str
    value: Any
    was: Any
    first: str | None
    distance: float
    """How far the change goes: 0 none, 1 from one end of the input's range to the other."""

    def as_json(self) -> dict[str, Any]:
        return {
            "input": self.name,
            "value": self.value,
            "was": self.was,
            "first": self.first,
            "distance": round(self.distance, 4),
        }


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to go, judged."""

    name: str
    title: str
    score: float
    """0 to 100."""
    reasons: list[Reason]
    blocks: list[Block]
    """Empty where it can be done."""
    assumes: list[str]
    """What it needs and the case does not say."""
    stages: list[Stage]
    """The runs to start from, in order."""
    nearest: OtherInput | None = None
    """Of the first option: the nearest change that puts another first; of any other: the nearest
    that puts it first. None where no single change was found to."""

    @property
    def possible(self) -> bool:
        return not self.blocks

    @property
    def fits(self) -> bool | None:
        """Whether every run fits the device; None where that is not known."""
        known = [stage.fits for stage in self.stages]
        return False if False in known else None if None in known or not known else True

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "score": round(self.score, 2),
            "possible": self.possible,
            "fits": self.fits,
            "reasons": [reason.as_json() for reason in self.reasons],
            "blocks": [block.as_json() for block in self.blocks],
            "assumes": self.assumes,
            "stages": [stage.as_json() for stage in self.stages],
            "nearest_change": self.nearest.as_json() if self.nearest else None,
        }


def ranked(case: Case, methods: Collection[str] = METHODS) -> list[Option]:
    """The options in order, without changes: possible ones first, then by score, then by effort."""
    found = [judged(name, case, methods) for name in OPTIONS]
    order = list(OPTIONS)
    return sorted(
        found, key=lambda option: (not option.possible, -option.score, order.index(option.name))
    )


def judged(name: str, case: Case, methods: Collection[str]) -> Option:
    reasons = [
        Reason(
            factor,
            rule.says(name, case),
            rule.grade(name, case),
            rule.weight,
            source_of(factor, case),
        )
        for factor, rule in FACTORS.items()
        if rule.known(case)
    ]
    runs = stages(name, case)
    return Option(
        name=name,
        title=OPTIONS[name].title,
        score=score(reasons),
        reasons=reasons,
        blocks=blocks(name, case, runs, methods),
        assumes=assumptions(name, case),
        stages=runs,
    )


def score(reasons: Collection[Reason]) -> float:
    """100 · Σ weight · grade / (3 · Σ weight). The weights are the same for every option."""
    whole = BEST * sum(reason.weight for reason in reasons)
    return 100.0 * sum(reason.weight * reason.grade for reason in reasons) / whole


def blocks(name: str, case: Case, runs: list[Stage], methods: Collection[str]) -> list[Block]:
    """Everything that rules an option out."""
    found: list[Block] = []

    def block(factor: str, says: str, source: str) -> None:
        found.append(Block(factor, says, source))

    encoder_base = case.shape is not None and not case.shape.decoder
    if name == "encoder" and case.task != "classification":
        block("task", f"an encoder labels texts, and the task is {case.task}", ENGINE)
    elif encoder_base and name != "encoder" and not labels_with(name, case):
        block("base", f"{case.base} is an encoder, which writes no text", ENGINE)
    # an encoder that the preset brings along is open, whatever the case's own base is
    if not case.model_in_house and (name != "encoder" or encoder_base):
        if case.private:
            needed = f"needs an {cell(name, 'privacy')}"
            said = f"the data may not leave the house, and the model is outside it: {needed}"
            block("privacy", said, TABLE)
        elif OPTIONS[name].trains:
            block("base", "the model's weights are not at hand, and this trains them", ENGINE)
    needs_blocks(name, case, block)
    absent = missing_methods(runs, methods)
    if absent:
        block("engine", f"this version of the engine has no method {', '.join(absent)}", ENGINE)
    for run in runs:
        if run.refused is not None and not encoder_base:
            block("base", f"{run.name}: {run.refused}", PLANNER)
        if run.fits is False and run.total_bytes is not None and case.device_bytes is not None:
            over = (run.total_bytes - case.device_bytes) / 1e9
            block(
                "hardware",
                f"{run.name} needs {run.total_bytes / 1e9:.2f} GB, {over:.2f} GB more than there "
                "are, with every saving that leaves it what it is",
                PLANNER,
            )
    if over_budget(runs, case):
        block(
            "budget",
            f"{LEAST_ROWS} rows take {least_hours(runs):.3g} h of {case.budget_hours:g} h",
            ARITHMETIC,
        )
    return found


def labels_with(name: str, case: Case) -> bool:
    """Whether the option is the training of a classifier."""
    return case.task == "classification" and name in ("lora", "qlora", "full")


def needs_blocks(name: str, case: Case, block: Any) -> None:
    """What the option is made from and the case has not."""
    examples, pairs, raw = case.labelled_examples, case.preference_pairs, case.raw_tokens
    if name in SUPERVISED and examples is not None and examples < LEAST_EXAMPLES:
        block(
            "labels",
            f"{examples} labelled examples; {LEAST_EXAMPLES} are the least that can be split into "
            "some to train on and some to measure on",
            "rule of thumb",
        )
    if name in PREFERENCE and pairs is not None and pairs < LEAST_EXAMPLES:
        block(
            "pairs",
            f"{pairs} preference pairs; {LEAST_EXAMPLES} are the least that can be split",
            "rule of thumb",
        )
    if (name in RETRIEVES or name == "pretrain_sft") and raw == 0:
        what = "look things up in" if name in RETRIEVES else "train on"
        block("raw text", f"there is no text of the domain to {what}", ENGINE)


def assumptions(name: str, case: Case) -> list[str]:
    """What the option needs and the case leaves open."""
    found = []
    if name in SUPERVISED and case.labelled_examples is None:
        found.append(f"{LEAST_EXAMPLES} labelled examples or more")
    if name in PREFERENCE and case.preference_pairs is None:
        found.append(f"{LEAST_EXAMPLES} preference pairs or more")
    if (name in RETRIEVES or name == "pretrain_sft") and case.raw_tokens is None:
        found.append("documents or raw text of the domain")
    if case.shape is None and name != "encoder":
        found.append("that the base fits: its config.json was not given")
    elif case.device_bytes is None:
        found.append("that the device has the memory: it was not given")
    return found
