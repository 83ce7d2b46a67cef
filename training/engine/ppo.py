"""Proximal policy optimization on one base that carries policy, reference, reward and value.

Policy, reward model and reference are adapters of the same base (the reference is the base itself,
or a frozen copy of the adapter the run starts from); the value is a head on the policy's own pass
or an adapter of its own; the reward may also come from another model or an HTTP endpoint.
Follows Schulman et al. 2017 (arXiv 1707.06347) and Huang et al. 2024 (arXiv 2403.17031). Differs:
- by default the value is a head on the policy's states that starts at zero, not a second network;
- log-probs are recomputed teacher-forced after decoding, so the first ratio is 1 (to rounding:
  minibatches are packed anew);
- losses average over the minibatch's real tokens, never over padding or per episode;
- a cut answer counts as over, and pays `missing_eos_penalty` at its last token.
What else differs, and when to use what: docs/methods/ppo.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.engine.advantages import (
    explained_variance,
    generalized_advantages,
    kl_shaped_rewards,
    whiten,
)
from training.engine.batching import Packing
from training.engine.config import PPOConfig
from training.engine.controllers import KLController, RunningScale
from training.engine.data import Branch, Pair, PromptRow, Tree, encode_prompts
from training.engine.dpo import ADAPTER, add_policy, held_out_margins, reference_logps
from training.engine.errors import StepZeroError
from training.engine.generation import text_of
from training.engine.held_out import HeldOut
from training.engine.kl_budget import KLBudget
from training.engine.models import Base, ScalarHead, load_base
from training.engine.ppo_update import POLICY, update_policy
from training.engine.preflight import TOLERANCE, announce, choose_packing, seed_everything
from training.engine.reward import test_pairs
from training.engine.reward_sources import reward_source
from training.engine.rollouts import Begun, Critic, Rollouts, answer_logps, roll_out
from training.engine.rundir import RunDir
from training.engine.sampler_check import expect_same_sampler
from training.engine.saved_adapters import saved_tensors
from training.engine.steps import Steps, batches

#: Name of the value's adapter on the base, where it has one.
VALUE = "value"
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
    reward = reward_source(run, base, ppo)
    critic = add_critic(run, base, ppo)
    named = trained(base, critic)
    steps = Steps(run, named, config.optim, total=ppo.updates)
    trainable = sum(parameter.numel() for parameter in named.values())
    announce(run, base, total_steps=ppo.updates, rows=len(prompts), trainable=trainable)
    parts: dict[str, Any] = {
        "policy": ADAPTER,
        "reference": reference,
        "reward": reward,
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
    policy = {name: each for name, each in named.items() if name.startswith(POLICY)}
    budget = KLBudget(ppo.kl_budget, policy)
    begun: Begun | None = None
    stopped: dict[str, Any] | None = None
    first = 0
    if checkpoint is None:
        expect_same_sampler(
            run, base, ADAPTER, measured,
            partial(answer_logps, base, packing=packing, temperature=ppo.temperature),
            temperature=ppo.temperature, max_new_tokens=ppo.max_new_tokens,
        )  # fmt: skip
        before = roll_out(base, measured, packing, seed=config.seed + MEASURE, **parts)
        packing = choose_packing(run, base, longest_trees(prompts, ppo))
        expect_same_policies(before, TOLERANCE[config.base.dtype])
        start = {
            "reward_before": before.scores.mean().item(),
            "kl_before": before.kl().mean().item(),
        }
    else:
        state = checkpoint.state
        start = {key: state[key] for key in ("reward_before", "kl_before")}
        packing = Packing(config.row_budget, shared=bool(state["shared"]))
        first = int(state["update"])
        kl_weight.coef = state["kl_coef"]
        scale = RunningScale(**state["scale"])
        budget.restore(checkpoint)
        stopped = state.get("stopped")
        if "minibatches" in state:
            begun = Begun.restored(checkpoint, [prompts[index] for index in order[first]])

    def carried(update: int) -> dict[str, Any]:
        """What goes on from update to update, for a checkpoint."""
        adapted = {"kl_coef": kl_weight.coef, "scale": asdict(scale)}
        place = {"update": update, "kept_updates": budget.kept_updates}
        return start | adapted | place | {"shared": packing.shared}

    def take_back(kl: float, updates: int) -> dict[str, Any]:
        """End the training with the policy from before its KL passed the budget."""
        found = budget.take_back(kl, updates)
        run.events.warning("kl_budget", found["why"])
        steps.reached(carried(updates) | {"stopped": found}, budget.tensors())
        return found

    watched = HeldOut(
        run, steps, pairs, held_out_by_policy(run, base, reference, packing), total=ppo.updates
    )
    run.events.write("phase", name="train")
    for update in range(first, ppo.updates if stopped is None else first):
        chosen = [prompts[index] for index in order[update]]
        if begun is None:
            on_held_out = watched.values()
            # 1. roll out and 2. score: answers of the policy, the reward of each
            with steps.weights_at_rest():
                rollouts = roll_out(
                    base,
                    chosen,
                    packing,
                    seed=config.seed * 1_000_003 + update,
                    critic=critic,
                    samples_per_prompt=ppo.samples_per_prompt,
                    **parts,
                )
            kl = rollouts.kl().mean().item()
            if budget.exceeded_by(kl):
                stopped = take_back(kl, update)
                break
            budget.keep(update)
            # 3. rewards and 4. advantages and returns
            begun = with_advantages(rollouts, ppo, kl_coef=kl_weight.coef, scale=scale)
            begun.held_out = on_held_out
        # 5. update: clipped policy and value losses over shuffled minibatches
        values = update_policy(
            base, critic, steps, begun, packing,
            update=update, carried=carried(update), kept=budget.tensors(),
        )  # fmt: skip
        # 6. log, adapt, save
        rollouts = begun.rollouts
        values |= rollouts.metrics() | begun.held_out | {"kl/coef": kl_weight.coef}
        if ppo.normalize_rewards:
            values["reward/scale"] = scale.std
        values["value/explained_variance"] = explained_variance(
            rollouts.values, begun.returns, rollouts.mask
        ).item()
        run.events.metrics(update + 1, values)
        show_sample(run, base, chosen, rollouts, step=update + 1)
        run.events.write("progress", step=update + 1, total_steps=ppo.updates)
        if update >= ppo.critic_warmup_updates:  # before that the KL is 0 whatever its weight
            kl_weight.update(values["kl/to_reference"], episodes=len(rollouts.answers))
        begun = None
        if steps.reached(carried(update + 1), budget.tensors()):
            break

    run.events.write("phase", name="evaluate")
    with steps.weights_at_rest():
        after = roll_out(base, measured, packing, seed=config.seed + MEASURE, **parts)
    alarmed = run.kept_step is not None  # then the adapter is that of its last good step
    if stopped is None and not alarmed and budget.exceeded_by(kl := after.kl().mean().item()):
        stopped = take_back(kl, ppo.updates)
        with steps.weights_at_rest():
            after = roll_out(base, measured, packing, seed=config.seed + MEASURE, **parts)
    run.events.write("phase", name="save")
    adapter = run.attempt_path / "adapter"
    if run.is_leader:
        base.save_adapter(ADAPTER, adapter)
    metrics = {
        "reward/mean_before": start["reward_before"],
        "reward/mean_after": after.scores.mean().item(),
        "kl/before": start["kl_before"],
        "kl/after": after.kl().mean().item(),
        "length/mean": after.lengths.float().mean().item(),
        "eos/rate": after.finished.float().mean().item(),
    }
    updates = ppo.updates if stopped is None else int(stopped["after_updates"])
    return {
        "steps": updates,
        # until an alarm rang, where one ended it
        "rows": (alarm.step if (alarm := run.alarms.stopping) else updates)
        * ppo.episodes_per_update,
        "metrics": metrics,
        "adapter": run.name_of(adapter),
        **({"reason": stopped["why"], "stopped": stopped} if stopped is not None else {}),
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


def add_critic(run: RunDir, base: Base, ppo: PPOConfig) -> Critic:
    """The value: a head that starts at zero, or with `own_adapter` a copy of the reward adapter.

    A value that begins as the reward model is the recipe of InstructGPT (Ouyang et al. 2022, arXiv
    2203.02155, appendix C.4) and of the TL;DR reproductions. The copy has the reward adapter's rank
    and layers. Where the reward is no adapter of this base, both start fresh.
    """
    head = ScalarHead(base.hidden_size, std=0.0).to(base.device)
    if ppo.value == "shared_head":
        return Critic(head, None)
    base.add_adapter(VALUE, run.config.adapter, init_from=ppo.reward_adapter)
    if ppo.reward_adapter is not None:
        scored = saved_tensors(Path(ppo.reward_adapter)).get("base_model.model.score.weight")
        if scored is not None and scored.shape == head.weight.shape:
            with torch.no_grad():
                head.weight.copy_(scored)
    return Critic(head, VALUE)


def trained(base: Base, critic: Critic) -> dict[str, torch.nn.Parameter]:
    """Everything that PPO trains, by its name in checkpoints."""
    base.train_only(ADAPTER, *([critic.adapter] if critic.adapter is not None else []))
    named = {f"{POLICY}{i}": each for i, each in enumerate(base.parameters(ADAPTER))}
    if critic.adapter is not None:
        own = base.parameters(critic.adapter)
        named |= {f"value_lora.{i}": each for i, each in enumerate(own)}
    return named | {"value": critic.head.weight}


def with_advantages(
    rollouts: Rollouts, ppo: PPOConfig, *, kl_coef: float, scale: RunningScale
) -> Begun:
    """Rewards, advantages and returns of a rollout; the scale of rewards takes its scores in."""
    scores = rollouts.scores
    if ppo.normalize_rewards:
        scale.add(scores.tolist())
        scores = scores / scale.std
    # the score at the last token, minus the KL to the reference at every token
    rewards = kl_shaped_rewards(
        rollouts.logps,
        rollouts.ref_logps,
        scores,
        rollouts.lengths,
        rollouts.finished,
        kl_coef=kl_coef,
        missing_eos_penalty=ppo.missing_eos_penalty,
    )
    if ppo.whiten_rewards:
        rewards = whiten(rewards, rollouts.mask, shift_mean=False)
    advantages, returns = generalized_advantages(
        rewards, rollouts.values, rollouts.mask, gamma=ppo.gamma, lam=ppo.lam
    )
    return Begun(rollouts, whiten(advantages, rollouts.mask), returns)


def episode_order(n_prompts: int, ppo: PPOConfig, seed: int) -> list[list[int]]:
    """Which prompts each update answers: passes over the prompts, each in a drawn order."""
    size = ppo.episodes_per_update // ppo.samples_per_prompt
    passes = -(-ppo.updates * size // n_prompts)
    flat = [index for batch in batches(n_prompts, n_prompts, passes, seed) for index in batch]
    return [flat[update * size : (update + 1) * size] for update in range(ppo.updates)]


def longest_trees(prompts: Sequence[PromptRow], ppo: PPOConfig) -> list[Tree]:
    """The two longest trees that may come: what packing is proven on must cover them.

    Which tokens they hold does not matter to the proof, so the prompt's own are repeated; beyond
    two, nor does how many answers share a prompt.
    """
    longest = sorted(prompts, key=lambda prompt: len(prompt.tokens))[-2:]
    return [
        Tree(p.tokens, (answer,) * min(ppo.samples_per_prompt, 2))
        for p in (longest * 2)[:2]
        for answer in [Branch(tuple(islice(cycle(p.tokens), ppo.max_new_tokens)))]
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
