"""How long a run takes, by counting multiplications.

A token's forward pass costs 2 operations for every weight it is multiplied with, and 4 · layers ·
context · q for attention over the tokens it is compared with; the way back costs as much for the
gradient of the inputs, and once more for that of weights that are trained (Kaplan et al. 2020,
arXiv 2001.08361: forward 2 N + 2 · n_layer · n_ctx · d_attn per token, of
which causal attention looks at n_ctx / 2 on average; backward twice that). With a frozen base only
the first half of the way back is done: 2 N instead of 4 N. Recomputing activations adds one forward
pass (Chen et al. 2016, arXiv 1604.06174).

Decoding reads every weight for each token of the rows written side by side, which memory bounds
more than arithmetic; without `bytes_per_s` it is counted in operations alone and said to be a lower
bound.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from training.engine.config import RunConfig
from training.engine.planner_memory import DECODE_ROWS
from training.engine.planner_shapes import BaseShape


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Operations and seconds; seconds are None where no rate, or no number of rows, is known."""

    steps: int | None
    """Optimizer steps, or updates of an online method."""
    tokens_per_step: int
    flops_per_step: float
    flops: float | None
    """Of the whole training, evaluation left out."""
    decoding_bytes_per_step: float
    """Weights read while answers are written."""
    seconds_per_step: float | None
    seconds: float | None
    note: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def forward_flops(shape: BaseShape, tokens: float, context: float, scored: float = 0.0) -> float:
    """Of so many tokens, each compared with `context` tokens on average."""
    attention = 4.0 * shape.layers * context * shape.q_size
    return tokens * (2.0 * shape.linear + attention) + scored * head_flops(shape)


def head_flops(shape: BaseShape) -> float:
    """The language-model head for one scored token."""
    return 2.0 * shape.vocab * shape.hidden


def trained_flops(
    shape: BaseShape,
    tokens: float,
    context: float,
    scored: float,
    *,
    full: bool,
    recomputed: bool,
    adapter: int = 0,
) -> float:
    """Forward and backward of so many tokens.

    adapter: its parameters, which are multiplied three times (forward, and both gradients). The
    head's gradient of its input is computed with the logits (`logprobs`): twice its forward; a head
    that is trained computes logits once more, and its own gradient.
    """
    blocks = forward_flops(shape, tokens, context)
    passes = 1.0 + (2.0 if full else 1.0) + (1.0 if recomputed else 0.0)
    head = scored * head_flops(shape) * (4.0 if full else 2.0)
    return passes * blocks + head + 6.0 * adapter * tokens


def estimate(
    config: RunConfig,
    shape: BaseShape,
    *,
    tokens_per_row: float,
    context: float,
    rows: int | None,
    flops_per_s: float | None,
    bytes_per_s: float | None,
    weights_bytes: int,
) -> Estimate:
    """What one step costs, and the run where the number of rows is known.

    tokens_per_row: of a row's prompt and all its responses, the prompt once. context: tokens that
    attention compares each with.
    """
    online = config.ppo or config.grpo or config.rloo
    if online is not None:
        steps: int | None = online.updates
        answers = (
            config.ppo.episodes_per_update
            if config.ppo is not None
            else (config.grpo or config.rloo).answers_per_update  # type: ignore[union-attr]
        )
        tokens, flops = online_flops(config, shape, tokens_per_row, context, answers)
        decoded = answers * online.max_new_tokens
        turns = math.ceil(answers / DECODE_ROWS) * online.max_new_tokens
    elif config.method in ("evaluate", "sample"):
        steps, (tokens, flops, decoded, turns) = (
            None,
            answered(config, shape, tokens_per_row, context, rows),
        )
    else:
        size = config.optim.batch_size
        steps = None if rows is None else math.ceil(rows / size) * config.optim.epochs
        if config.optim.max_steps is not None:
            steps = min(steps or config.optim.max_steps, config.optim.max_steps)
        tokens = size * tokens_per_row
        flops = step_flops(config, shape, tokens, context)
        decoded = turns = 0
    read = float(turns * weights_bytes)
    seconds = None
    if flops_per_s:
        seconds = flops / flops_per_s
        if decoded and bytes_per_s:
            # the answers' own operations are part of `flops`; reading weights is what takes longer
            of_decoding = decoded * 2.0 * shape.linear / flops_per_s
            seconds += max(0.0, read / bytes_per_s - of_decoding)
    whole = None if steps is None else steps * flops
    note = "operations at the given rate; loading, measuring and writing are left out"
    if decoded and not bytes_per_s:
        note += "; decoding is counted in operations only, so this is a lower bound"
    return Estimate(
        steps=steps,
        tokens_per_step=round(tokens),
        flops_per_step=flops,
        flops=whole,
        decoding_bytes_per_step=read,
        seconds_per_step=seconds,
        seconds=None if seconds is None or steps is None else steps * seconds,
        note=note,
    )


def adapter_of(config: RunConfig, shape: BaseShape) -> int:
    if config.tuning == "full":
        return 0
    asked = config.adapter
    return shape.adapter(asked.target_modules, asked.r, dora=asked.use_dora)


def step_flops(config: RunConfig, shape: BaseShape, tokens: float, context: float) -> float:
    """One optimizer step of a method that learns from rows."""
    scored = 0.0 if config.method in ("reward", "classify") else tokens
    flops = trained_flops(
        shape,
        tokens,
        context,
        scored,
        full=config.tuning == "full",
        recomputed=config.gradient_checkpointing,
        adapter=adapter_of(config, shape),
    )
    if config.method == "dpo":
        # the reference's log-probs are computed once, whatever the epochs, and cached
        flops += forward_flops(shape, tokens, context, scored) / config.optim.epochs
    if config.method == "kto":
        # TRL: the policy's pass over mismatched pairs, and the reference's over both
        flops += 3.0 * forward_flops(shape, tokens, context, scored)
    return flops


def online_flops(
    config: RunConfig, shape: BaseShape, tokens_per_tree: float, context: float, answers: int
) -> tuple[float, float]:
    """(tokens, operations) of one update: answers, scores, log-probs, and passes over them."""
    online = config.ppo or config.grpo or config.rloo
    assert online is not None  # noqa: S101 - the caller's method is online
    new = answers * online.max_new_tokens
    if config.ppo is not None:
        trees = answers / config.ppo.samples_per_prompt
        forwards, own = 3.0, config.ppo.value == "own_adapter"
    else:
        trees, forwards, own = float(answers), 2.0, False
    tokens = trees * tokens_per_tree
    prompts = max(0.0, tokens - new)
    writing = forward_flops(shape, prompts + new, tokens_per_tree / 2, float(new))
    scoring = (forwards + own) * forward_flops(shape, tokens, context, float(new))
    update = trained_flops(
        shape,
        tokens,
        context,
        float(new),
        full=False,
        recomputed=config.gradient_checkpointing,
        adapter=adapter_of(config, shape),
    )
    return tokens, writing + scoring + online.epochs * update * (2.0 if own else 1.0)


def answered(
    config: RunConfig, shape: BaseShape, tokens_per_row: float, context: float, rows: int | None
) -> tuple[float, float, int, int]:
    """(tokens, operations, tokens decoded, decoding turns) of evaluate and sample."""
    if config.sample is not None:
        answers = (rows or 1) * config.sample.samples_per_prompt
        new = answers * config.sample.max_new_tokens
        tokens = answers * tokens_per_row
        turns = math.ceil(answers / DECODE_ROWS) * config.sample.max_new_tokens
        return tokens, forward_flops(shape, tokens, tokens_per_row / 2, float(new)), new, turns
    asked = config.evaluate
    assert asked is not None  # noqa: S101 - the caller's method is evaluate
    measured = sum(name is not None for name in (asked.reward_adapter, asked.policy_adapter)) + int(
        asked.policy_adapter is not None
    )
    tokens = (rows or 1) * tokens_per_row
    flops = measured * forward_flops(shape, tokens, context, tokens)
    new = 2 * asked.generate * asked.max_new_tokens
    turns = 2 * math.ceil(asked.generate / DECODE_ROWS) * asked.max_new_tokens
    flops += forward_flops(shape, float(new), tokens_per_row / 2, float(new))
    return tokens, flops, new, turns
