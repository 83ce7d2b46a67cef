"""What the advisor knows: a grade for every option under every factor, its weight and its source.

A grade is 0 (weak) to 3 (best). `BASE_TABLE` is the table that the advice starts from, cell by
cell; it holds at the end of each factor that its row names (very different, often, strict, few).
At the other end `OTHER_END` holds, which is ours, and between them a grade moves in a straight
line with the factor's level, so that more of a factor never turns a gain into a loss.

Every rule carries its source. RULE marks what is a rule of thumb: a judgment that nobody measured,
to be argued with. Papers are named for their finding; the numbers are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from training.engine.advisor_case import CHANGES, FORMATS, Case

RULE = "rule of thumb"
TABLE = "base table of the advisor"


@dataclass(frozen=True)
class Kind:
    """One way to adapt a model. column: which column of the base table speaks for it."""

    title: str
    column: str
    effort: float
    trains: bool


#: Options, the least work first: that order also breaks ties.
OPTIONS = {
    "prompting": Kind("prompting", "prompting", 3.0, False),
    "rag": Kind("retrieval (RAG)", "rag", 2.0, False),
    "encoder": Kind("classification fine-tuning of an encoder", "fine-tune", 2.0, True),
    "lora": Kind("fine-tuning with LoRA", "fine-tune", 2.0, True),
    "qlora": Kind("fine-tuning with QLoRA", "fine-tune", 2.0, True),
    "full": Kind("full fine-tuning", "fine-tune", 1.5, True),
    "dpo": Kind("preference tuning with DPO", "fine-tune", 1.0, True),
    "pretrain_sft": Kind("continued pretraining, then fine-tuning", "fine-tune", 0.5, True),
    "rag_lora": Kind("retrieval and fine-tuning with LoRA", "both", 0.0, True),
    "ppo": Kind("preference tuning with PPO", "fine-tune", 0.0, True),
}
PREFERENCE = ("dpo", "ppo")
SUPERVISED = ("encoder", "lora", "qlora", "full", "rag_lora")
#: What answers from documents that are looked up.
RETRIEVES = ("rag", "rag_lora")

BASE_TABLE = {
    "domain": {"fine-tune": "best", "rag": "good", "prompting": "weak"},
    "knowledge": {"fine-tune": "retrain needed", "rag": "best", "prompting": "best"},
    "format": {"fine-tune": "best", "rag": "good", "prompting": "moderate"},
    "labels": {"fine-tune": "LoRA with few examples", "rag": "best", "prompting": "best"},
    "privacy": {
        "fine-tune": "open model + fine-tuning",
        "rag": "open model + RAG",
        "prompting": "open model only",
    },
}
OTHER_END = {
    # text like the base's own needs nothing that a prompt cannot say
    "domain": {"fine-tune": "good", "rag": "good", "prompting": "best"},
    # facts that stay may as well be in the weights
    "knowledge": {"fine-tune": "best", "rag": "good", "prompting": "good"},
    "format": {"fine-tune": "good", "rag": "good", "prompting": "good"},
    # many labels are what training is for; a prompt holds only a few
    "labels": {"fine-tune": "best", "rag": "good", "prompting": "moderate"},
    "privacy": {"fine-tune": "good", "rag": "good", "prompting": "good"},
}
GRADES = {
    "best": 3.0, "good": 2.0, "moderate": 1.0, "weak": 0.0,
    # it has to be done again at every change: no better than weak
    "retrain needed": 0.0,
    # it works, with that method
    "LoRA with few examples": 2.0,
    # no option is better than another under it: what it asks for is the model's openness
    "open model + fine-tuning": 2.0, "open model + RAG": 2.0, "open model only": 2.0,
}  # fmt: skip
#: Fine-tunings that the row "few labels" does not mean, which names LoRA.
FEW_LABELS = {"encoder": 0.0, "full": 0.0}

#: Fewer examples than this cannot be split into some to train on and some to measure on.
LEAST_EXAMPLES = 10
#: Where "few labels" ends to be fully true, and where it is no longer true at all.
FEW, MANY = 50, 5_000
#: Rows that a budget has to pay for at the least; more can always be left out.
LEAST_ROWS = 100

TASK_FIT: dict[str, dict[str, float]] = {
    "classification": {
        "prompting": 1, "rag": 0, "encoder": 3, "lora": 2, "qlora": 2, "full": 2, "dpo": 0,
        "pretrain_sft": 1, "rag_lora": 1, "ppo": 0,
    },
    "extraction": {
        "prompting": 2, "rag": 1, "encoder": 0, "lora": 3, "qlora": 3, "full": 3, "dpo": 0,
        "pretrain_sft": 1, "rag_lora": 1, "ppo": 0,
    },
    "style": {
        "prompting": 1, "rag": 1, "encoder": 0, "lora": 3, "qlora": 3, "full": 3, "dpo": 2,
        "pretrain_sft": 1, "rag_lora": 1, "ppo": 1,
    },
    "knowledge": {
        "prompting": 1, "rag": 3, "encoder": 0, "lora": 1, "qlora": 1, "full": 1, "dpo": 0,
        "pretrain_sft": 2, "rag_lora": 2, "ppo": 0,
    },
    "preference": {
        "prompting": 1, "rag": 0, "encoder": 0, "lora": 1, "qlora": 1, "full": 1, "dpo": 3,
        "pretrain_sft": 0, "rag_lora": 0, "ppo": 2,
    },
    "generation": {
        "prompting": 2, "rag": 1, "encoder": 0, "lora": 2, "qlora": 2, "full": 2, "dpo": 1,
        "pretrain_sft": 2, "rag_lora": 1, "ppo": 0,
    },
}  # fmt: skip
TASK_SOURCES = {
    "classification": "BERT arXiv 1810.04805: an encoder fine-tuned whole; grades " + RULE,
    "extraction": RULE,
    "style": "LIMA arXiv 2305.11206: a thousand examples teach a style; grades " + RULE,
    "knowledge": "arXiv 2312.05934: retrieval beats training for facts, known and new; grades "
    + RULE,
    "preference": "DPO arXiv 2305.18290, RLHF arXiv 2203.02155; grades " + RULE,
    "generation": RULE,
}


def between(start: float, end: float, level: float) -> float:
    """The grade at `level` (0 to 1) of a straight line."""
    return start + (end - start) * level


def log_level(value: float, start: float, end: float) -> float:
    """0 at `start` and below, 1 at `end` and above, straight in the logarithm between."""
    if value <= start:
        return 0.0
    return min(1.0, math.log(value / start) / math.log(end / start))


def few_labels(examples: int) -> float:
    """How true "few labels" is: 1 up to FEW examples, 0 from MANY on."""
    return 1.0 - log_level(examples, FEW, MANY)


def table_grade(option: str, factor: str, level: float) -> float:
    """The base table at `level`; a combination has the better of its parts."""
    column = OPTIONS[option].column
    if column == "both":
        # its weights still need the examples
        parts = ["lora"] if factor == "labels" else ["lora", "rag"]
        return max(table_grade(part, factor, level) for part in parts)
    end = GRADES[BASE_TABLE[factor][column]]
    if factor == "labels":
        end = FEW_LABELS.get(option, end)
    return between(GRADES[OTHER_END[factor][column]], end, level)


def cell(option: str, factor: str) -> str:
    """What the base table says of an option, in its own words."""
    columns = {"both": ("fine-tune", "rag")}.get(OPTIONS[option].column, (OPTIONS[option].column,))
    return " / ".join(BASE_TABLE[factor][column] for column in columns)


@dataclass(frozen=True)
class Factor:
    """One thing that speaks for or against options.

    level: None where the case does not say it, or it has no bearing on the task; grade: of an
    option in the case; says: the case's side of it in words.
    """

    weight: float
    source: str
    known: Callable[[Case], bool]
    grade: Callable[[str, Case], float]
    says: Callable[[str, Case], str]


def domain_says(option: str, case: Case) -> str:
    how = "measured" if case.domain_measured else "said"
    return (
        f"texts are {case.domain_distance:.2f} of 1 from general ones ({how}); very different "
        f"ones: {cell(option, 'domain')}"
    )


def labels_level(case: Case) -> float:
    return few_labels(case.labelled_examples or 0)


def labels_grade(option: str, case: Case) -> float:
    # they learn from pairs; examples are neither here nor there
    return 2.0 if option in PREFERENCE else table_grade(option, "labels", labels_level(case))


def labels_says(option: str, case: Case) -> str:
    if option in PREFERENCE:
        return "learns from pairs, not from examples"
    said = "many" if labels_level(case) == 0 else f"{labels_level(case):.0%} “few”"
    return f"{case.labelled_examples:,} examples ({said}); few: {cell(option, 'labels')}"


def pairs_grade(option: str, case: Case) -> float:
    pairs = case.preference_pairs or 0
    if option == "dpo":
        # its pairs are not the trained policy's own, so that many more add less
        return 1.0 + 1.5 * log_level(pairs, 30, 10_000)
    if option == "ppo":
        return 3.0 * log_level(pairs, 300, 30_000)
    return 1.0


def raw_grade(option: str, case: Case) -> float:
    tokens = case.raw_tokens or 0
    if option in RETRIEVES:
        return 2.0 + log_level(tokens, 1e4, 1e7)
    if option == "pretrain_sft":
        return 3.0 * log_level(tokens, 1e5, 1e9)
    if option == "prompting":
        return 2.0 * (1.0 - log_level(tokens, 1e3, 1e6))
    return 1.0


def size_grade(option: str, case: Case) -> float:
    big = log_level(case.shape.parameters if case.shape else 0, 1e9, 7e9)
    ends = {"full": (3.0, 1.0), "lora": (2.0, 3.0), "qlora": (1.0, 3.0), "encoder": (3.0, 3.0)}
    return between(*ends.get(option, (2.0, 2.0)), big)


def material(option: str, case: Case) -> int | None:
    """How much there is of what an option is made from; None where that is not known."""
    if option in PREFERENCE:
        return case.preference_pairs
    if option == "rag_lora" and case.raw_tokens is None:
        return None
    if option in SUPERVISED:
        return case.labelled_examples
    return case.raw_tokens if option in ("rag", "pretrain_sft") else MANY


def material_says(option: str, case: Case) -> str:
    known = material(option, case) is not None
    return "what it is made from is there" if known else "made from what the case does not mention"


#: Every factor, in the order in which reasons are given.
FACTORS: dict[str, Factor] = {
    "task": Factor(
        4.0,
        "see TASK_SOURCES",
        lambda case: True,
        lambda option, case: TASK_FIT[case.task][option],
        lambda option, case: f"the task is {case.task}",
    ),
    "domain": Factor(
        2.0,
        f"{TABLE}; arXiv 2004.10964: training on a domain's own text pays",
        lambda case: case.domain_distance is not None,
        lambda option, case: table_grade(option, "domain", case.domain_distance or 0.0),
        domain_says,
    ),
    "knowledge": Factor(
        3.0,
        f"{TABLE}; RAG arXiv 2005.11401: an index is changed without training",
        lambda case: case.knowledge_changes is not None,
        lambda option, case: table_grade(
            option, "knowledge", CHANGES[case.knowledge_changes or "never"]
        ),
        lambda option, case: (
            f"knowledge changes {case.knowledge_changes}; often: {cell(option, 'knowledge')}"
        ),
    ),
    "format": Factor(
        2.0,
        f"{TABLE}; arXiv 2305.11206",
        lambda case: case.consistent_format is not None,
        lambda option, case: table_grade(option, "format", FORMATS[case.consistent_format or "no"]),
        lambda option, case: (
            f"need for one form: {case.consistent_format}; strict: {cell(option, 'format')}"
        ),
    ),
    "labels": Factor(
        4.0,
        f"{TABLE}; arXiv 1801.06146: a hundred labels go far; arXiv 2006.05987: fine-tuning an "
        f"encoder on few is unstable; {FEW} and {MANY:,} are a {RULE}",
        lambda case: case.labelled_examples is not None,
        labels_grade,
        labels_says,
    ),
    "privacy": Factor(
        1.0,
        TABLE,
        lambda case: case.private is not None,
        lambda option, case: table_grade(option, "privacy", float(bool(case.private))),
        lambda option, case: (
            cell(option, "privacy") if case.private else "data may leave the house"
        ),
    ),
    "pairs": Factor(
        4.0,
        f"arXiv 2305.18290, 2404.10719 (PPO can pass DPO); the counts are a {RULE}",
        lambda case: case.preference_pairs is not None and case.task in ("preference", "style"),
        pairs_grade,
        lambda option, case: f"{case.preference_pairs:,} preference pairs",
    ),
    "raw text": Factor(
        2.0,
        f"arXiv 2004.10964, 2005.11401; the counts are a {RULE}",
        lambda case: case.raw_tokens is not None and case.task in ("knowledge", "generation"),
        raw_grade,
        lambda option, case: f"{case.raw_tokens:,} tokens of raw text",
    ),
    "size of the base": Factor(
        1.0,
        f"arXiv 2305.14314: QLoRA's 4 bits are for bases that do not fit otherwise; 1 and 7 "
        f"billion are a {RULE}",
        lambda case: case.shape is not None,
        size_grade,
        lambda option, case: (
            f"{case.shape.parameters / 1e9:.3g} billion parameters" if case.shape else ""
        ),
    ),
    "material": Factor(
        2.0,
        RULE,
        lambda case: True,
        lambda option, case: 0.0 if material(option, case) is None else 3.0,
        material_says,
    ),
    "effort": Factor(
        1.0,
        RULE,
        lambda case: True,
        lambda option, case: OPTIONS[option].effort,
        lambda option, case: "work to build and to keep up",
    ),
}


def source_of(factor: str, case: Case) -> str:
    return TASK_SOURCES[case.task] if factor == "task" else FACTORS[factor].source
