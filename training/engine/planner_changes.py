"""What makes a run need less memory, in the order of what it costs.

First what only takes time, then what changes the numbers a little, then what learns from less, then
what leaves text out. The planner tries these until a run fits; the page of a run that had too
little memory proposes the mildest of each. Holds no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from training.engine.config import (
    IDLE_METHODS,
    ONLINE_METHODS,
    OPTIMIZERS,
    TRL_METHODS,
    PPOConfig,
    RunConfig,
)
from training.engine.planner_memory import DECODE_ROWS

#: Below these a smaller setting saves next to nothing.
LEAST_ROW_BUDGET, LEAST_LENGTH, LEAST_PROMPT, LEAST_NEW_TOKENS = 64, 128, 64, 16

Settings = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One kind of change: dotted settings, the mildest first, and what they do to the run."""

    values: list[Settings]
    why: str
    #: Whether the run comes out the same, to rounding; it only takes longer.
    same_result: bool = False


def kinds(config: RunConfig, device: str) -> Iterator[Kind]:
    """Every kind that may help this run on a gpu or cpu, the gentlest first."""
    for kind in (
        *same_results(config),
        *smaller_batches(config),
        *cheaper_numbers(config, device),
        *fewer_answers(config),
        *shorter_texts(config),
    ):
        if kind.values:
            yield kind


def trains(config: RunConfig) -> bool:
    return config.method not in IDLE_METHODS


def same_results(config: RunConfig) -> Iterator[Kind]:
    """Own methods go through a batch row by row: their memory is that of one packed row."""
    if config.method not in ("sample", *TRL_METHODS):
        yield Kind(
            [{"row_budget": value} for value in halves(config.row_budget, LEAST_ROW_BUDGET)],
            "Fewer tokens go through the model at once. Slower; the result is the same to "
            "rounding. A single text that is longer still goes through whole.",
            same_result=True,
        )
    if trains(config) and not config.gradient_checkpointing:
        yield Kind(
            [{"gradient_checkpointing": True}],
            "What the way back needs is computed again instead of being kept. Slower; the result "
            "is the same.",
            same_result=True,
        )


def smaller_batches(config: RunConfig) -> Iterator[Kind]:
    """TRL goes through a batch or minibatch at once; its KTO needs two answers in it."""
    if config.method in ("kto", "orpo"):
        least = 2 if config.method == "kto" else 1
        yield Kind(
            [{"optim.batch_size": v} for v in halves(config.optim.batch_size, least)],
            "Fewer rows go through the model at once. More and noisier steps.",
        )
    online = config.grpo or config.rloo
    if online is not None:
        sizes = halves(online.minibatch_size, 1)
        yield Kind(
            [
                {f"{config.method}.minibatch_size": v}
                for v in sizes
                if online.answers_per_update % v == 0
            ],
            "Fewer answers go through the model at once. More and noisier steps.",
        )


def cheaper_numbers(config: RunConfig, device: str) -> Iterator[Kind]:
    if trains(config) and config.optim.optimizer == "adamw":
        allowed = [name for name in OPTIMIZERS[1:] if device == "gpu" or "paged" not in name]
        yield Kind(
            [{"optim.optimizer": name} for name in allowed if name != "paged_adamw"],
            "Adam's moments are held in 8 bits; the numbers change slightly.",
        )
    if config.base.dtype == "float32":
        yield Kind(
            [{"base.dtype": "bfloat16"}],
            "The model computes in 16 bits; the numbers change slightly. This is chosen with the "
            "version that the round starts from.",
        )
    # an adapter belongs to its base as it is
    begun = config.adapter.init_from is not None or config.method == "evaluate"
    if config.base.quantization != "nf4" and config.tuning != "full" and not begun:
        yield Kind(
            [{"base.quantization": "nf4"}],
            "The base's linear layers are held in 4 bits; the numbers change slightly. This is "
            "chosen with the version that the round starts from.",
        )
    if config.tuning == "full":
        yield Kind(
            [{"tuning": "lora"}, {"tuning": "lora", "base.quantization": "nf4"}],
            "An adapter is trained instead of every weight, whose gradients and moments go.",
        )


def fewer_answers(config: RunConfig) -> Iterator[Kind]:
    """Answers are written DECODE_ROWS at a time, so only fewer than that need less."""
    measured = "The measurement before and after answers as few prompts at once as an update. Its "
    measured += "figures are less certain."
    if config.ppo is not None:
        ppo = config.ppo
        at_once = min(ppo.episodes_per_update, DECODE_ROWS)
        if ppo.eval_prompts > at_once:
            yield Kind([{"ppo.eval_prompts": at_once}], measured)
        yield Kind(
            [half_an_update(ppo, value) for value in halves(at_once, ppo.samples_per_prompt)],
            "Fewer answers are written at the same time. Each update learns from fewer of them.",
        )
    online = config.grpo or config.rloo
    if online is not None and online.eval_prompts > online.prompts_per_update:
        yield Kind([{f"{config.method}.eval_prompts": online.prompts_per_update}], measured)


def half_an_update(ppo: PPOConfig, answers: int) -> Settings:
    """So many answers an update at most, all of each prompt, and as many prompts measured."""
    episodes = answers // ppo.samples_per_prompt * ppo.samples_per_prompt
    found: Settings = {"ppo.episodes_per_update": episodes}
    if ppo.eval_prompts > answers:
        found["ppo.eval_prompts"] = answers
    return found


def shorter_texts(config: RunConfig) -> Iterator[Kind]:
    if config.method not in ("sample", *ONLINE_METHODS):
        yield Kind(
            [shorter(config, value) for value in halves(config.data.max_length, LEAST_LENGTH)],
            "Longer texts are cut, and longer prompts left out: the run's warnings count how many.",
        )
    else:
        yield Kind(
            [
                {"data.max_prompt_length": value}
                for value in halves(config.data.max_prompt_length, LEAST_PROMPT)
            ],
            "Longer prompts are left out altogether: the run's warnings count how many.",
        )
    measured = config.evaluate if config.evaluate and config.evaluate.generate else None
    section = config.ppo or config.grpo or config.rloo or config.sample or measured
    if section is not None:
        yield Kind(
            [
                {f"{config.method}.max_new_tokens": value}
                for value in halves(section.max_new_tokens, LEAST_NEW_TOKENS)
            ],
            "Answers end earlier; those that were not done by then are cut.",
        )


def halves(value: int, least: int) -> list[int]:
    """Half of a value, half of that …, as far as `least`."""
    found = []
    while value // 2 >= least:
        value //= 2
        found.append(value)
    return found


def shorter(config: RunConfig, length: int) -> Settings:
    """Texts of at most `length` tokens, whose prompts leave room for an answer."""
    found: Settings = {"data.max_length": length}
    if config.data.max_prompt_length > length // 2:
        found["data.max_prompt_length"] = length // 2
    return found
