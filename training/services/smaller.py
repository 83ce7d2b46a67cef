"""Settings that need less memory, for a run that had too little.

In the order of what they cost: first what only takes time, then what changes the numbers a little,
then what leaves text out. How many bytes each saves depends on the base, the device and the data,
so none is promised.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.engine.config import ONLINE_METHODS, TRL_METHODS, PPOConfig, RunConfig, from_dict
from training.engine.errors import ConfigError

#: Methods that hold activations for a backward pass.
TRAINED = ("sft", "reward", "dpo", "ppo", *TRL_METHODS)
#: The engine writes answers in batches of so many (training/engine/generation.py).
ANSWERS_AT_ONCE = 32
#: Below these a setting saves next to nothing.
LEAST_ROW_BUDGET, LEAST_LENGTH, LEAST_NEW_TOKENS = 64, 128, 16


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
        """Whether it can be set at launch; the base is chosen there instead."""
        return not self.name.startswith("base.")


def smaller_settings(config: Mapping[str, Any]) -> list[Change]:
    """What to change in an engine config so that the run needs less memory, the gentlest first.

    Empty where nothing is left to propose, or where the config is not one of this version.
    """
    try:
        asked = from_dict(dict(config))
    except ConfigError:
        return []
    # A smaller batch or minibatch would not help our own methods: the engine goes through a batch
    # row by row, so its memory is that of one row, which row_budget bounds. TRL takes it whole.
    proposals = [
        recompute(asked), shorter_rows(asked), smaller_batch(asked), smaller_minibatch(asked),
        four_bits(asked), fewer_answers(asked),
        measured_prompts(asked), shorter_texts(asked), shorter_prompts(asked),
        shorter_answers(asked),
    ]  # fmt: skip
    return [change for change in proposals if change is not None]


def recompute(asked: RunConfig) -> Change | None:
    if asked.method not in TRAINED or asked.gradient_checkpointing:
        return None
    return Change(
        "gradient_checkpointing", False, True,
        "What the way back needs is computed again instead of being kept. Slower; the result is "
        "the same.", same_result=True,
    )  # fmt: skip


def shorter_rows(asked: RunConfig) -> Change | None:
    if asked.method in ("sample", *TRL_METHODS) or asked.row_budget <= LEAST_ROW_BUDGET:
        return None
    return Change(
        "row_budget", asked.row_budget, max(LEAST_ROW_BUDGET, asked.row_budget // 2),
        "Fewer tokens go through the model at once. Slower; the result is the same to rounding. "
        "A single text that is longer still goes through whole.", same_result=True,
    )  # fmt: skip


def smaller_batch(asked: RunConfig) -> Change | None:
    """TRL's KTO and ORPO go through a batch at once; KTO needs two answers in it."""
    least = {"kto": 4, "orpo": 2}.get(asked.method)
    if least is None or asked.optim.batch_size < least:
        return None
    return Change(
        "optim.batch_size", asked.optim.batch_size, asked.optim.batch_size // 2,
        "Fewer rows go through the model at once. More and noisier steps.",
    )  # fmt: skip


def smaller_minibatch(asked: RunConfig) -> Change | None:
    """TRL's GRPO and RLOO go through a minibatch at once."""
    online = asked.grpo or asked.rloo
    if online is None or online.minibatch_size % 2:
        return None
    return Change(
        f"{asked.method}.minibatch_size", online.minibatch_size, online.minibatch_size // 2,
        "Fewer answers go through the model at once. More and noisier steps.",
    )  # fmt: skip


def four_bits(asked: RunConfig) -> Change | None:
    """Only where the run starts from the base itself: an adapter belongs to its base as it is."""
    evaluates = asked.method in ("evaluate", "sample")
    full = asked.tuning == "full"  # which a quantized base refuses
    if asked.base.quantization == "nf4" or asked.adapter.init_from is not None or evaluates or full:
        return None
    return Change(
        "base.quantization", asked.base.quantization, "nf4",
        "The base's linear layers are held in 4 bits; the numbers change slightly. This is chosen "
        "with the version that the round starts from.",
    )  # fmt: skip


def half_at_once(ppo: PPOConfig) -> int:
    """Half of the answers that an update writes at the same time."""
    return max(1, min(ppo.episodes_per_update, ANSWERS_AT_ONCE) // 2)


def fewer_answers(asked: RunConfig) -> Change | None:
    if asked.ppo is None or asked.ppo.episodes_per_update < 2:
        return None
    return Change(
        "ppo.episodes_per_update", asked.ppo.episodes_per_update, half_at_once(asked.ppo),
        "Fewer answers are written at the same time. Each update learns from fewer of them.",
    )  # fmt: skip


def measured_prompts(asked: RunConfig) -> Change | None:
    online = asked.grpo or asked.rloo
    if asked.ppo is not None:
        before, after = asked.ppo.eval_prompts, half_at_once(asked.ppo)
    elif online is not None:
        before, after = online.eval_prompts, online.prompts_per_update
    else:
        return None
    if before <= after:
        return None
    return Change(
        f"{asked.method}.eval_prompts", before, after,
        "The measurement before and after answers as few prompts at once as an update. Its figures "
        "are less certain.",
    )  # fmt: skip


def shorter_texts(asked: RunConfig) -> Change | None:
    if asked.method in ("sample", *ONLINE_METHODS) or asked.data.max_length <= LEAST_LENGTH:
        return None
    return Change(
        "data.max_length", asked.data.max_length, max(LEAST_LENGTH, asked.data.max_length // 2),
        "Longer texts are cut: the run's warnings count how many.",
    )  # fmt: skip


def shorter_prompts(asked: RunConfig) -> Change | None:
    before = asked.data.max_prompt_length
    if asked.method in ("sample", *ONLINE_METHODS):
        after = max(LEAST_LENGTH // 2, before // 2)
    else:  # a prompt has to leave room for an answer in the shorter texts proposed above
        texts = shorter_texts(asked)
        after = (texts.after if texts is not None else asked.data.max_length) // 2
    if after >= before:
        return None
    return Change(
        "data.max_prompt_length", before, after,
        "Longer prompts are left out altogether: the run's warnings count how many.",
    )  # fmt: skip


def shorter_answers(asked: RunConfig) -> Change | None:
    section = asked.ppo or asked.grpo or asked.rloo or asked.sample or asked.evaluate
    if section is None or section.max_new_tokens <= LEAST_NEW_TOKENS:
        return None
    if asked.evaluate is not None and not asked.evaluate.generate:
        return None
    return Change(
        f"{asked.method}.max_new_tokens", section.max_new_tokens,
        max(LEAST_NEW_TOKENS, section.max_new_tokens // 2),
        "Answers end earlier; those that were not done by then are cut.",
    )  # fmt: skip


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
