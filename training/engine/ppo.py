"""Proximal policy optimization against a reward adapter, on one quantized base.

Policy, reward model and reference are adapters of the same base (the reference is the base itself,
or a frozen copy of the adapter the run starts from); the value is a head on the policy's own pass.
Follows Schulman et al. 2017 (arXiv 1707.06347) and Huang et al. 2024 (arXiv 2403.17031). Differs:
- the value head starts at zero and shares the policy's states, instead of a critic of its own;
- log-probs are recomputed teacher-forced after decoding, so the first ratio is 1 (to rounding:
  minibatches are packed anew);
- losses average over the minibatch's real tokens, never over padding or per episode;
- a cut answer counts as over, and pays `missing_eos_penalty` at its last token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from training.engine.advantages import (
    approximate_kl,
    clip_fraction,
    explained_variance,
    generalized_advantages,
    kl_shaped_rewards,
    length_mask,
    masked_mean,
    policy_losses,
    value_losses,
    whiten,
)
from training.engine.batching import Packing, pack
from training.engine.config import PPOConfig
from training.engine.controllers import KLController, RunningScale
from training.engine.data import Branch, Pair, PromptRow, Tree, encode_prompts
from training.engine.dpo import ADAPTER, add_policy, held_out_margins, reference_logps
from training.engine.errors import StepZeroError
from training.engine.generation import text_of
from training.engine.held_out import HeldOut
from training.engine.models import Base, ScalarHead, load_base
from training.engine.preflight import TOLERANCE, announce, choose_packing, seed_everything
from training.engine.reward import ADAPTER as REWARD
from training.engine.reward import attach, test_pairs
from training.engine.rollouts import Begun, Rollouts, policy_tables, roll_out
from training.engine.rundir import RunDir
from training.engine.steps import Steps, batches

#: Offset that keeps the seeds of the before/after measurement apart from those of rollouts.
MEASURE = 7_777_777


def train(run: RunDir) -> dict[str, Any]:
    """Train the policy adapter on data.prompts and save it. Returns the result."""
    config = run.config
    ppo = config.ppo
    assert ppo is not None  # noqa: S101 - the config guarantees it
    seed_everything(config)
    run.events.write("phase", name="load")
    base = load_base(run.base, gradient_checkpointing=config.gradient_checkpointing)
    rows = run.rows(config.data.prompts)
    prompts = encode_prompts(base, rows, config.data, run.events, max_new_tokens=ppo.max_new_tokens)
    pairs = watched_pairs(run, base)
    reference = add_policy(run, base)
    reward_head = attach(base, ppo.reward_adapter)
    value_head = ScalarHead(base.hidden_size, std=0.0).to(base.device)
    parameters = base.train_only(ADAPTER)
    named = {f"lora.{i}": parameter for i, parameter in enumerate(parameters)}
    named["value"] = value_head.weight
    steps = Steps(run, named, config.optim, total=ppo.updates)
    trainable = sum(parameter.numel() for parameter in named.values())
    announce(run, base, total_steps=ppo.updates, rows=len(prompts), trainable=trainable)
    parts: dict[str, Any] = {
        "policy": ADAPTER,
        "reference": reference,
        "reward": REWARD,
        "reward_head": reward_head,
        "value_head": value_head,
        "max_new_tokens": ppo.max_new_tokens,
        "temperature": ppo.temperature,
    }

    order = episode_order(len(prompts), ppo, config.seed)
    measured = prompts[: ppo.eval_prompts]
    run.events.write("phase", name="measure")
    checkpoint = steps.resume()
    packing = Packing(config.row_budget, shared=True)
    kl_weight = KLController(ppo.kl_coef, ppo.kl_target, ppo.kl_horizon)
    scale = RunningScale()
    begun: Begun | None = None
    first = 0
    if checkpoint is None:
        before = roll_out(base, measured, packing, seed=config.seed + MEASURE, **parts)
        packing = choose_packing(run, base, [*before.trees, *longest_trees(prompts, ppo)])
        expect_same_policies(before, TOLERANCE[config.base.dtype])
        kept = {
            "reward_before": before.scores.mean().item(),
            "kl_before": before.kl().mean().item(),
        }
    else:
        state = checkpoint.state
        kept = {key: state[key] for key in ("reward_before", "kl_before")}
        packing = Packing(config.row_budget, shared=bool(state["shared"]))
        first = int(state["update"])
        kl_weight.coef = state["kl_coef"]
        scale = RunningScale(**state["scale"])
        if "minibatches" in state:
            begun = Begun.restored(checkpoint, [prompts[index] for index in order[first]])

    def carried(update: int) -> dict[str, Any]:
        """What goes on from update to update, for a checkpoint."""
        adapted = {"kl_coef": kl_weight.coef, "scale": asdict(scale)}
        return kept | adapted | {"shared": packing.shared, "update": update}

    watched = HeldOut(
        run, steps, pairs, held_out_by_policy(run, base, reference, packing), total=ppo.updates
    )
    run.events.write("phase", name="train")
    for update in range(first, ppo.updates):
        chosen = [prompts[index] for index in order[update]]
        if begun is None:
            on_held_out = watched.values()
            # 1. roll out and 2. score: answers of the policy, the reward adapter's score of each
            with steps.weights_at_rest():
                rollouts = roll_out(
                    base, chosen, packing, seed=config.seed * 1_000_003 + update, **parts
                )
            scores = rollouts.scores
            if ppo.normalize_rewards:
                scale.add(scores.tolist())
                scores = scores / scale.std
            # 3. rewards: the score at the last token, minus the KL to the reference at every token
            rewards = kl_shaped_rewards(
                rollouts.logps,
                rollouts.ref_logps,
                scores,
                rollouts.lengths,
                rollouts.finished,
                kl_coef=kl_weight.coef,
                missing_eos_penalty=ppo.missing_eos_penalty,
            )
            if ppo.whiten_rewards:
                rewards = whiten(rewards, rollouts.mask, shift_mean=False)
            # 4. advantages and returns
            advantages, returns = generalized_advantages(
                rewards, rollouts.values, rollouts.mask, gamma=ppo.gamma, lam=ppo.lam
            )
            begun = Begun(rollouts, whiten(advantages, rollouts.mask), returns, sums=on_held_out)
        # 5. update: clipped policy and value losses over shuffled minibatches
        values = update_policy(
            run, base, value_head, steps, begun, packing, update=update, carried=carried(update)
        )
        # 6. log, adapt, save
        rollouts = begun.rollouts
        values |= rollouts.metrics() | {"kl/coef": kl_weight.coef}
        if ppo.normalize_rewards:
            values["reward/scale"] = scale.std
        values["value/explained_variance"] = explained_variance(
            rollouts.values, begun.returns, rollouts.mask
        ).item()
        run.events.metrics(update + 1, values)
        show_sample(run, base, chosen, rollouts, step=update + 1)
        run.events.write("progress", step=update + 1, total_steps=ppo.updates)
        kl_weight.update(values["kl/to_reference"], episodes=len(chosen))
        begun = None
        if steps.reached(carried(update + 1)):
            break

    run.events.write("phase", name="evaluate")
    with steps.weights_at_rest():
        after = roll_out(base, measured, packing, seed=config.seed + MEASURE, **parts)
    run.events.write("phase", name="save")
    adapter = run.attempt_path / "adapter"
    base.save_adapter(ADAPTER, adapter)
    metrics = {
        "reward/mean_before": kept["reward_before"],
        "reward/mean_after": after.scores.mean().item(),
        "kl/before": kept["kl_before"],
        "kl/after": after.kl().mean().item(),
        "length/mean": after.lengths.float().mean().item(),
        "eos/rate": after.finished.float().mean().item(),
    }
    episodes = ppo.updates * ppo.episodes_per_update
    return {
        "steps": ppo.updates,
        "rows": episodes,
        "metrics": metrics,
        "adapter": run.name_of(adapter),
    }


def watched_pairs(run: RunDir, base: Base) -> list[Pair]:
    """Held-out pairs for the over-optimisation alarm; none where it is off."""
    alarms = run.config.alarms
    return [] if alarms.over_optimisation == "off" else test_pairs(run, base)


def held_out_by_policy(
    run: RunDir, base: Base, reference: str | None, packing: Packing
) -> Callable[[Sequence[Pair]], list[float]]:
    """What gives the policy's implicit reward margins of pairs (log-ratios, nats)."""

    @cache
    def references(some: tuple[Pair, ...]) -> Tensor:
        return reference_logps(base, reference, some, packing, run.events)

    def margins(some: Sequence[Pair]) -> list[float]:
        known = references(tuple(some))
        with base.use(ADAPTER):
            return held_out_margins(base, some, known, packing, beta=1.0)

    return margins


def update_policy(
    run: RunDir,
    base: Base,
    value_head: ScalarHead,
    steps: Steps,
    begun: Begun,
    packing: Packing,
    *,
    update: int,
    carried: Mapping[str, Any],
) -> dict[str, float]:
    """`epochs` passes over the rollouts in minibatches. Returns the update's mean metrics."""
    ppo = run.config.ppo
    assert ppo is not None  # noqa: S101 - the config guarantees it
    rollouts, sums = begun.rollouts, begun.sums
    tensors = begun.tensors()
    width = rollouts.logps.shape[1]
    taken: dict[str, float] = {}
    plan = batches(
        len(rollouts.trees), ppo.minibatch_size, ppo.epochs, seed=run.config.seed + 31 * update
    )
    with base.use(ADAPTER):
        for minibatch in plan[begun.minibatches :]:
            position = {"minibatches": begun.minibatches, "sums": dict(sums)}
            steps.reached({**carried, **position}, tensors)
            n_tokens = int(rollouts.lengths[minibatch].sum())
            figures = {
                "loss/policy": 0.0,
                "loss/value": 0.0,
                "clip/fraction": 0.0,
                "kl/update": 0.0,
            }
            for group in pack([rollouts.trees[i] for i in minibatch], packing):
                steps.raise_if_stopped()
                indices, logps, values = policy_tables(
                    base, value_head, group, width, ppo.temperature
                )
                rows = [minibatch[i] for i in indices]
                mask = length_mask(rollouts.lengths[rows], width).to(logps.device)
                old_logps = rollouts.logps[rows].to(logps.device)
                policy_tokens = policy_losses(
                    logps,
                    old_logps,
                    begun.advantages[rows].to(logps.device),
                    cliprange=ppo.cliprange,
                )
                value_tokens = value_losses(
                    values,
                    rollouts.values[rows].to(logps.device),
                    begun.returns[rows].to(logps.device),
                    cliprange_value=ppo.cliprange_value,
                )
                share = mask.sum() / n_tokens
                policy_loss = masked_mean(policy_tokens, mask) * share
                value_loss = masked_mean(value_tokens, mask) * share
                loss = policy_loss + ppo.vf_coef * value_loss
                steps.check_finite(loss)
                loss.backward()
                with torch.no_grad():
                    clipped = clip_fraction(logps, old_logps, mask, cliprange=ppo.cliprange)
                    moved = masked_mean(approximate_kl(old_logps, logps, "k3"), mask)
                figures["loss/policy"] += policy_loss.item()
                figures["loss/value"] += value_loss.item()
                figures["clip/fraction"] += (clipped * share).item()
                figures["kl/update"] += (moved * share).item()
            taken = steps.take(schedule_step=update)
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + value / len(plan)
            begun.minibatches += 1
    return sums | taken


def episode_order(n_prompts: int, ppo: PPOConfig, seed: int) -> list[list[int]]:
    """Which prompts each update answers: passes over the prompts, each in a drawn order."""
    needed = ppo.updates * ppo.episodes_per_update
    passes = -(-needed // n_prompts)
    flat = [index for batch in batches(n_prompts, n_prompts, passes, seed) for index in batch]
    size = ppo.episodes_per_update
    return [flat[update * size : (update + 1) * size] for update in range(ppo.updates)]


def longest_trees(prompts: Sequence[PromptRow], ppo: PPOConfig) -> list[Tree]:
    """The two longest episodes that may come: what packing is proven on must cover them.

    Which tokens they hold does not matter to the proof, so the prompt's own are repeated.
    """
    longest = sorted(prompts, key=lambda prompt: len(prompt.tokens))[-2:]
    return [
        Tree(p.tokens, (Branch(tuple(islice(cycle(p.tokens), ppo.max_new_tokens))),))
        for p in longest
    ]


def expect_same_policies(before: Rollouts, tolerance: float) -> None:
    """Before training the policy is the reference: KL 0 on every token. Raises StepZeroError."""
    difference = float((before.logps - before.ref_logps).abs().max())
    if difference > tolerance:
        raise StepZeroError(
            f"PPO's policy and reference differ by {difference:.3g} nats before the first update; "
            "the reference is not the policy's start"
        )


def show_sample(
    run: RunDir, base: Base, prompts: Sequence[PromptRow], rollouts: Rollouts, *, step: int
) -> None:
    """The first answer of the update and its score, for people to read along."""
    answer = rollouts.answers[0]
    prompt = prompts[answer.prompt]
    run.events.write(
        "sample",
        step=step,
        prompt_id=prompt.id,
        prompt=prompt.messages,
        text=text_of(base, answer),
        reward=rollouts.scores[0].item(),
    )
