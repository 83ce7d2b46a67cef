"""GRPO and RLOO by TRL's trainers: several answers to each prompt, scored by a reward adapter.

The policy is compared with itself: an answer's advantage is its score against those of the other
answers to the same prompt, so there is no value to learn. TRL makes groups, advantages and loss;
answers are written by our generation and scored by a reward adapter on the same base.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from training.engine.batching import Packing, pack
from training.engine.checkpoint import Checkpoint
from training.engine.config_trl import OnlineConfig
from training.engine.data import Branch, PromptRow, Tree, encode_prompts
from training.engine.errors import StepZeroError
from training.engine.generation import Generation, generate, text_of
from training.engine.logprobs import group_logps
from training.engine.models import Base, load_base
from training.engine.preflight import TOLERANCE, announce, choose_packing, seed_everything
from training.engine.reward import ADAPTER as REWARD
from training.engine.reward import attach, tree_scores
from training.engine.rundir import RunDir
from training.engine.sampler_check import expect_same_sampler
from training.engine.steps import Steps, batches
from training.engine.stopping import raise_if_stopped
from training.engine.trainers import (
    ADAPTER,
    REFERENCE,
    add_gradients,
    arguments,
    drained,
    hand_over,
    stopping_between_layers,
)

#: Offset that keeps the seeds of the before/after measurement apart from those of rollouts.
MEASURE = 7_777_777
#: Prefix of a checkpoint's tensors that belong to the update that was begun.
ROLLOUT = "rollout/"


class Answering:
    """What TRL's trainer gets its answers and scores from, in the middle of its own batch."""

    def __init__(
        self, run: RunDir, base: Base, prompts: Sequence[PromptRow], settings: OnlineConfig
    ) -> None:
        self.base = base
        self.prompts = prompts
        self.settings = settings
        self.seed = run.config.seed
        self.head = attach(base, settings.reward_adapter)
        self.packing = Packing(run.config.row_budget, shared=True)
        self.chosen: list[PromptRow] = []
        self.answers: list[Generation] = []
        self.scores = torch.zeros(0)
        self._update = 0

    def rows(self, update: int, indices: Sequence[int]) -> list[dict[str, Any]]:
        """One row an answer of this update, the answers to one prompt side by side."""
        self._update = update
        self.chosen = [self.prompts[index] for index in indices]
        repeats = range(self.settings.samples_per_prompt)
        return [{"prompt": prompt.messages} for prompt in self.chosen for _ in repeats]

    def prompt_ids(self) -> list[list[int]]:
        repeats = range(self.settings.samples_per_prompt)
        return [list(prompt.tokens) for prompt in self.chosen for _ in repeats]

    def write(self) -> list[list[int]]:
        """The answers of the update, in the order of `rows`."""
        seed = self.seed * 1_000_003 + self._update
        self.answers = write_answers(self.base, self.chosen, self.settings, seed=seed)
        return [list(answer.tokens) for answer in self.answers]

    def rewards(self, **asked: Any) -> list[float]:
        """The score of every answer, less the penalty of those that were cut; TRL calls it."""
        self.scores = self.score(self.chosen, self.answers)
        cut = torch.tensor([not answer.finished for answer in self.answers])
        rewards: list[float] = (self.scores - self.settings.missing_eos_penalty * cut).tolist()
        return rewards

    def score(self, prompts: Sequence[PromptRow], answers: Sequence[Generation]) -> Tensor:
        """Reward-adapter scores of answers. Returns: (len(answers),)"""
        trees = trees_of(prompts, answers)
        with self.base.use(REWARD):
            return tree_scores(self.base, self.head, trees, self.packing).flatten()

    def figures(self) -> dict[str, float]:
        """What the update's answers were like."""
        lengths = torch.tensor([len(answer.tokens) for answer in self.answers])
        finished = torch.tensor([answer.finished for answer in self.answers])
        return {
            "reward/mean": self.scores.mean().item(),
            "length/mean": lengths.float().mean().item(),
            "eos/rate": finished.float().mean().item(),
        }


def write_answers(
    base: Base, prompts: Sequence[PromptRow], settings: OnlineConfig, *, seed: int
) -> list[Generation]:
    """`samples_per_prompt` answers to each prompt under the active adapter."""
    return generate(
        base,
        [prompt.tokens for prompt in prompts],
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        seed=seed,
        samples_per_prompt=settings.samples_per_prompt,
    )


def trees_of(prompts: Sequence[PromptRow], answers: Sequence[Generation]) -> list[Tree]:
    """One tree a prompt, its answers the branches; `answers` are ordered by prompt."""
    branches: list[list[Branch]] = [[] for _ in prompts]
    for answer in answers:
        branches[answer.prompt].append(Branch(answer.tokens))
    return [Tree(prompt.tokens, tuple(own)) for prompt, own in zip(prompts, branches, strict=True)]


@torch.no_grad()
def answer_logps(base: Base, trees: Sequence[Tree], packing: Packing, temperature: float) -> Tensor:
    """Summed log-probs of answers at the sampling temperature. Returns: (len(trees), K)"""
    result = torch.zeros(len(trees), len(trees[0].branches))
    for group in pack(trees, packing):
        raise_if_stopped()
        indices, table = group_logps(base, group, temperature)
        result[indices] = table.cpu()
    return result


def measure(
    answering: Answering, prompts: Sequence[PromptRow], *, before: bool = False
) -> tuple[dict[str, float], list[Tree]]:
    """Reward and KL of the active adapter on fixed prompts and seeds; k1, per answer (nats).

    Raises StepZeroError where `before` training the policy is not the reference.
    """
    base, settings = answering.base, answering.settings
    answers = write_answers(base, prompts, settings, seed=answering.seed + MEASURE)
    trees = trees_of(prompts, answers)
    scores = answering.score(prompts, answers)
    own = answer_logps(base, trees, answering.packing, settings.temperature)
    with base.use(REFERENCE):
        theirs = answer_logps(base, trees, answering.packing, settings.temperature)
    kl = own - theirs
    if before and float(kl.abs().max()) > TOLERANCE[base.config.dtype]:
        raise StepZeroError(
            f"policy and reference differ by {float(kl.abs().max()):.3g} nats before the first "
            "update; the reference is not the policy's start"
        )
    lengths = torch.tensor([len(answer.tokens) for answer in answers])
    return {
        "reward/mean": scores.mean().item(),
        "kl": kl.mean().item(),
        "length/mean": lengths.float().mean().item(),
        "eos/rate": sum(answer.finished for answer in answers) / len(answers),
    }, trees


@torch.no_grad()
def training_logps(
    trainer: Any, base: Base, prompts: Sequence[PromptRow], answers: Sequence[Generation]
) -> Tensor:
    """Log-probs of an answer to each prompt by TRL's own pass, token after token: (N,)

    As its loss lays rows out: prompts end where answers begin, padded to both sides.
    """
    width = max(len(prompt.tokens) for prompt in prompts)
    longest = max(len(answer.tokens) for answer in answers)
    ids = torch.full((len(answers), width + longest), base.eos_id)
    seen = torch.zeros_like(ids)
    for line, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        row = torch.tensor(prompt.tokens + answer.tokens)
        start = width - len(prompt.tokens)
        ids[line, start : start + len(row)] = row
        seen[line, start : start + len(row)] = 1
    logps = trainer._get_per_token_logps_and_entropies(
        trainer.model, ids.to(base.device), seen.to(base.device), longest
    )[0]
    return torch.cat([row[: len(a.tokens)].cpu() for row, a in zip(logps, answers, strict=True)])


def trl_arguments(run: RunDir, folder: str, settings: OnlineConfig) -> dict[str, Any]:
    """What GRPO's and RLOO's configs have in common."""
    return {
        **arguments(run, folder, batch_size=settings.minibatch_size),
        "steps_per_generation": settings.minibatches,
        "num_generations": settings.samples_per_prompt,
        "max_completion_length": settings.max_new_tokens,
        "temperature": settings.temperature,
        "num_iterations": settings.epochs,
        "beta": settings.beta,
        "epsilon": settings.epsilon,
    }


def train(
    run: RunDir,
    settings: OnlineConfig,
    build: Callable[[str, Any, Any, Callable[..., list[float]]], Any],
    names: Mapping[str, str],
    *,
    kl: str,
) -> dict[str, Any]:
    """Train the policy adapter on data.prompts and save it. Returns the result.

    `build(folder, model, tokenizer, reward)` makes the trainer; `names` are its figures under ours;
    `kl` is the name of its KL, which TRL gives per token and we per answer.
    """
    config = run.config
    seed_everything(config)
    run.events.write("phase", name="load")
    base = load_base(run.base, gradient_checkpointing=config.gradient_checkpointing)
    rows = run.rows(config.data.prompts)
    prompts = encode_prompts(
        base, rows, config.data, run.events, max_new_tokens=settings.max_new_tokens
    )

    def score(**asked: Any) -> list[float]:
        return answering.rewards(**asked)

    def make(folder: str, model: Any, tokenizer: Any) -> Any:
        return build(folder, model, tokenizer, score)

    trainer = hand_over(run, base, make)
    answering = Answering(run, base, prompts, settings)
    trainer.answering = answering
    trainer.eos_token_ids = [base.eos_id]
    parameters = base.train_only(ADAPTER)
    named = {f"lora.{i}": parameter for i, parameter in enumerate(parameters)}
    steps = Steps(run, named, config.optim, total=settings.updates)
    trainable = sum(parameter.numel() for parameter in parameters)
    announce(run, base, total_steps=settings.updates, rows=len(prompts), trainable=trainable)

    order = prompt_order(len(prompts), settings, config.seed)
    measured = prompts[: settings.eval_prompts]
    run.events.write("phase", name="measure")
    with base.use(ADAPTER), stopping_between_layers(base):
        checkpoint = steps.resume()
        first, begun = 0, None
        if checkpoint is None:
            expect_same_sampler(
                run, base, ADAPTER, measured, partial(training_logps, trainer, base),
                temperature=settings.temperature, max_new_tokens=settings.max_new_tokens,
            )  # fmt: skip
            start, trees = measure(answering, measured, before=True)
            longest = longest_trees(prompts, settings)
            answering.packing = choose_packing(run, base, [*trees, *longest])
            kept = {"reward_before": start["reward/mean"], "kl_before": start["kl"]}
        else:
            state = checkpoint.state
            kept = {key: state[key] for key in ("reward_before", "kl_before")}
            answering.packing = Packing(config.row_budget, shared=bool(state["shared"]))
            first = int(state["update"])
            begun = restored(trainer, checkpoint)
        kept |= {"shared": answering.packing.shared}

        run.events.write("phase", name="train")
        for update in range(first, settings.updates):
            if begun is None:
                # 1. answers, scores and advantages: TRL asks `answering` for the first two
                trainer._step = 0
                with steps.weights_at_rest():
                    trainer._prepare_inputs(answering.rows(update, order[update]))
                figures = answering.figures() | figures_of(trainer, names, kl, rows=None)
                begun = {"minibatches": 0, "sums": {}, "figures": figures}
                show_sample(run, answering, step=update + 1)
            # 2. update: TRL's loss, minibatch by minibatch
            taken = update_policy(
                trainer, settings, steps, begun, names, kl, carried=kept | {"update": update}
            )
            # 3. log, save
            run.events.metrics(update + 1, begun["figures"] | begun["sums"] | taken)
            run.events.write("progress", step=update + 1, total_steps=settings.updates)
            begun = None
            if steps.reached(kept | {"update": update + 1}):
                break

        run.events.write("phase", name="evaluate")
        with steps.weights_at_rest():
            after, _ = measure(answering, measured)
    run.events.write("phase", name="save")
    adapter = run.attempt_path / "adapter"
    base.save_adapter(ADAPTER, adapter)
    return {
        "steps": settings.updates,
        # until an alarm rang, where one ended it
        "rows": (alarm.step if (alarm := run.alarms.stopping) else settings.updates)
        * settings.answers_per_update,
        "metrics": {
            "reward/mean_before": kept["reward_before"],
            "reward/mean_after": after["reward/mean"],
            "kl/before": kept["kl_before"],
            "kl/after": after["kl"],
            "length/mean": after["length/mean"],
            "eos/rate": after["eos/rate"],
        },
        "adapter": run.name_of(adapter),
    }


def update_policy(
    trainer: Any,
    settings: OnlineConfig,
    steps: Steps,
    begun: dict[str, Any],
    names: Mapping[str, str],
    kl: str,
    *,
    carried: Mapping[str, Any],
) -> dict[str, float]:
    """`epochs` passes over the update's answers; figures are averaged into `begun["sums"]`.

    Returns: rate and gradient norm of the last step
    """
    taken: dict[str, float] = {}
    total = settings.minibatches * settings.epochs
    buffer = rollout_tensors(trainer)
    for minibatch in range(begun["minibatches"], total):
        steps.reached({**carried, **copy_of(begun)}, buffer)
        inputs = trainer._buffered_inputs[minibatch % settings.minibatches]
        loss = add_gradients(trainer, inputs, steps)
        values = {"loss/train": loss} | figures_of(trainer, names, kl, rows=inputs)
        taken = steps.take(schedule_step=int(carried["update"]))
        for name, value in values.items():
            begun["sums"][name] = begun["sums"].get(name, 0.0) + value / total
        begun["minibatches"] = minibatch + 1
    return taken


def copy_of(begun: Mapping[str, Any]) -> dict[str, Any]:
    """The state of an update as it is now, for a checkpoint that may be written later."""
    return {**begun, "sums": dict(begun["sums"])}


def figures_of(
    trainer: Any, names: Mapping[str, str], kl: str, *, rows: Mapping[str, Tensor] | None
) -> dict[str, float]:
    """What the trainer noted down, under our names; its KL per token times tokens per answer.

    `rows` is the minibatch that the KL was taken over; the whole update by default.
    """
    noted = trainer._metrics["train"]
    if rows is None:
        length = float(noted["completions/mean_length"][-1])
    else:
        length = float(rows["completion_mask"].sum(dim=1).float().mean())
    values = drained(noted, {**names, "kl": kl})
    if kl in values:
        values[kl] *= length
    return values


def rollout_tensors(trainer: Any) -> dict[str, Tensor]:
    """The update's batch as TRL holds it (minibatches of equal size), for a checkpoint."""
    chunks = trainer._buffered_inputs
    return {
        f"{ROLLOUT}{name}": torch.cat([chunk[name] for chunk in chunks]) if value.ndim else value
        for name, value in chunks[0].items()
    }


def restored(trainer: Any, checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Give the trainer back the batch of an update that was begun; None between two updates."""
    if "minibatches" not in checkpoint.state:
        return None
    from trl.trainer.utils import split_tensor_dict

    tensors: dict[str, Tensor | None] = {
        name.removeprefix(ROLLOUT): tensor.to(trainer.args.device)
        for name, tensor in checkpoint.tensors.items()
        if name.startswith(ROLLOUT)
    }
    trainer._buffered_inputs = split_tensor_dict(tensors, trainer.args.steps_per_generation)
    return {key: checkpoint.state[key] for key in ("minibatches", "sums", "figures")}


def prompt_order(n_prompts: int, settings: OnlineConfig, seed: int) -> list[list[int]]:
    """Which prompts each update answers: passes over the prompts, each in a drawn order."""
    size = settings.prompts_per_update
    passes = -(-settings.updates * size // n_prompts)
    flat = [index for batch in batches(n_prompts, n_prompts, passes, seed) for index in batch]
    return [flat[update * size : (update + 1) * size] for update in range(settings.updates)]


def longest_trees(prompts: Sequence[PromptRow], settings: OnlineConfig) -> list[Tree]:
    """The two longest groups that may come, so that packing is proven on them.

    Which tokens they hold does not matter to the proof, so the prompt's own are repeated.
    """
    longest = sorted(prompts, key=lambda prompt: len(prompt.tokens))[-2:]
    trees = []
    for prompt in longest:
        branch = Branch(tuple(islice(cycle(prompt.tokens), settings.max_new_tokens)))
        trees.append(Tree(prompt.tokens, (branch,) * settings.samples_per_prompt))
    return trees


def show_sample(run: RunDir, answering: Answering, *, step: int) -> None:
    """The first answer of the update and its score, for people to read along."""
    prompt, answer = answering.chosen[0], answering.answers[0]
    run.events.write(
        "sample",
        step=step,
        prompt_id=prompt.id,
        prompt=prompt.messages,
        text=text_of(answering.base, answer),
        reward=answering.scores[0].item(),
    )
