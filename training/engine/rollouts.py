"""What PPO knows of an answer: its tokens, its score, and per-token log-probs and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from training.engine.advantages import approximate_kl, length_mask
from training.engine.batching import PackedRow, Packing
from training.engine.checkpoint import Checkpoint
from training.engine.data import Branch, PromptRow, Tree
from training.engine.distributed import add_up
from training.engine.generation import Generation, generate
from training.engine.logprobs import states_at, token_logps
from training.engine.models import Base, ScalarHead
from training.engine.reward_sources import Answers, RewardSource, checked_scores
from training.engine.sharding import own_groups
from training.engine.stopping import raise_if_stopped

#: The tensors of `Rollouts`, and what an answer is made of when they are read back.
TABLES = ("lengths", "finished", "scores", "logps", "ref_logps", "values")
FACTS = ("tokens", "lengths", "finished", "seeds")


@dataclass(frozen=True)
class Rollouts:
    """A batch of B answers of at most T tokens. Everything (B, T) is right-padded with 0.

    Answers stand in the order of (prompt, sample); the answers to one prompt are one tree.
    """

    answers: list[Generation]
    trees: list[Tree]
    lengths: Tensor  # (B,)
    finished: Tensor  # (B,) bool
    scores: Tensor  # (B,) reward-model score of the whole answer
    logps: Tensor  # (B, T) of the policy that sampled, recomputed teacher-forced
    ref_logps: Tensor  # (B, T)
    values: Tensor  # (B, T)

    @property
    def mask(self) -> Tensor:
        return length_mask(self.lengths, self.logps.shape[1])

    def kl(self, estimator: str = "k1") -> Tensor:
        """KL to the reference summed over each answer. Returns: (B,)"""
        tokens = approximate_kl(self.logps, self.ref_logps, estimator)  # type: ignore[arg-type]
        return torch.where(self.mask, tokens, 0.0).sum(dim=1)

    def tensors(self) -> dict[str, Tensor]:
        """All that `restored` needs, for a checkpoint in the middle of an update."""
        tokens = torch.zeros(len(self.answers), self.logps.shape[1], dtype=torch.long)
        for line, answer in zip(tokens, self.answers, strict=True):
            line[: len(answer.tokens)] = torch.tensor(answer.tokens)
        tables = {name: getattr(self, name) for name in TABLES}
        return {"tokens": tokens, "seeds": torch.tensor([a.seed for a in self.answers]), **tables}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], prompts: Sequence[PromptRow]) -> Rollouts:
        """The rollouts of `tensors`, which answered these prompts equally often."""
        facts = zip(*(tensors[key].tolist() for key in FACTS), strict=True)
        several = len(tensors["seeds"]) // len(prompts)
        answers = [
            Generation(*divmod(row, several), tuple(tokens[:length]), finished, seed)
            for row, (tokens, length, finished, seed) in enumerate(facts)
        ]
        trees = trees_of(prompts, answers)
        return cls(answers, trees, **{name: tensors[name] for name in TABLES})

    def rows(self, trees: Sequence[int]) -> list[int]:
        """The answers of these trees, in the trees' order."""
        several = len(self.answers) // len(self.trees)
        return [tree * several + sample for tree in trees for sample in range(several)]

    def metrics(self) -> dict[str, float]:
        return {
            "reward/mean": self.scores.mean().item(),
            "kl/to_reference": self.kl().mean().item(),
            "kl/k3": self.kl("k3").mean().item(),
            "entropy": -(self.logps.sum() / self.mask.sum()).item(),
            "length/mean": self.lengths.float().mean().item(),
            "eos/rate": self.finished.float().mean().item(),
        }


@dataclass
class Begun:
    """An update and how far it is: its rollouts, the minibatches done, their figures summed.

    taken: what the last optimizer step reported.
    """

    rollouts: Rollouts
    advantages: Tensor  # (B, T)
    returns: Tensor  # (B, T)
    minibatches: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    taken: dict[str, float] = field(default_factory=dict)
    held_out: dict[str, float] = field(default_factory=dict)
    """What was measured on held-out pairs before the update."""

    def position(self) -> dict[str, Any]:
        """How far it is, as plain JSON for a checkpoint."""
        done = {"sums": dict(self.sums), "taken": dict(self.taken), "held_out": self.held_out}
        return {"minibatches": self.minibatches, **done}

    def tensors(self) -> dict[str, Tensor]:
        tensors = self.rollouts.tensors()
        tensors |= {"advantages": self.advantages, "returns": self.returns}
        return {f"rollout/{name}": tensor for name, tensor in tensors.items()}

    @classmethod
    def restored(cls, checkpoint: Checkpoint, prompts: Sequence[PromptRow]) -> Begun:
        tensors = {
            name.removeprefix("rollout/"): tensor
            for name, tensor in checkpoint.tensors.items()
            if name.startswith("rollout/")
        }
        return cls(
            Rollouts.restored(tensors, prompts),
            tensors["advantages"],
            tensors["returns"],
            minibatches=int(checkpoint.state["minibatches"]),
            sums=dict(checkpoint.state["sums"]),
            taken=dict(checkpoint.state["taken"]),
            held_out=dict(checkpoint.state["held_out"]),
        )


def trees_of(prompts: Sequence[PromptRow], answers: Sequence[Generation]) -> list[Tree]:
    """One tree for each prompt: its answers share it."""
    branches: list[list[Branch]] = [[] for _ in prompts]
    for answer in answers:
        branches[answer.prompt].append(Branch(answer.tokens))
    return [Tree(prompt.tokens, tuple(own)) for prompt, own in zip(prompts, branches, strict=True)]


def token_table(
    group: Sequence[PackedRow], flat: Sequence[Tensor], width: int
) -> tuple[list[int], Tensor]:
    """Per-token values of a group's answers as a padded table, with gradient.

    Every tree has the same number of answers. flat: for each row (N,).
    Returns: (for each of the n lines, which of all answers it is, (n, width))
    """
    several = 1 + max(part for row in group for _, part in row.branches)
    answers = [tree * several + part for row in group for tree, part in row.branches]
    tables = []
    for row, values in zip(group, flat, strict=True):
        # the tokens of a branch lie together, and branches follow each other
        lengths = torch.bincount(row.branch_of, minlength=len(row.branches))
        starts = (lengths.cumsum(0) - lengths).to(values.device)
        branch_of = row.branch_of.to(values.device)
        offsets = torch.arange(len(values), device=values.device) - starts[branch_of]
        table = values.new_zeros(len(row.branches), width)
        tables.append(table.index_put((branch_of, offsets), values))
    return answers, torch.cat(tables)


def policy_tables(
    base: Base,
    head: ScalarHead | None,
    group: Sequence[PackedRow],
    width: int,
    temperature: float,
) -> tuple[list[int], Tensor, Tensor]:
    """Log-probs and values of a group under the active adapter: (answers, (n, T), (n, T)).

    The value of a token is read from the state that predicts it; without a head it is 0.
    """
    logps, values = [], []
    for row in group:
        placed = row.to(base.device)
        states = states_at(base, placed, placed.sources)
        logps.append(token_logps(base, placed, states, temperature))
        values.append(head(states) if head is not None else torch.zeros_like(logps[-1]))
    answers, table = token_table(group, logps, width)
    return answers, table, token_table(group, values, width)[1]


@torch.no_grad()
def answer_logps(
    base: Base,
    prompts: Sequence[PromptRow],
    answers: Sequence[Generation],
    *,
    packing: Packing,
    temperature: float,
) -> Tensor:
    """Log-probs of an answer to each prompt under the active adapter, token after token: (N,)"""
    lengths = torch.tensor([len(answer.tokens) for answer in answers])
    width = int(lengths.max())
    table = torch.zeros(len(answers), width)
    for group in own_groups(base, trees_of(prompts, answers), packing):
        rows, logps, _ = policy_tables(base, None, group, width, temperature)
        table[rows] = logps.cpu()
    add_up(table)
    return table[length_mask(lengths, width)]


def value_table(
    base: Base, head: ScalarHead, group: Sequence[PackedRow], width: int, *, frozen: bool
) -> tuple[list[int], Tensor]:
    """Values of a group under the active adapter: (answers, (n, T)).

    frozen: no gradient reaches the adapter, only the head.
    """
    values = []
    for row in group:
        placed = row.to(base.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            states = states_at(base, placed, placed.sources)
        values.append(head(states))
    return token_table(group, values, width)


@dataclass(frozen=True)
class Critic:
    """Where values come from: a head on the policy's own states, or on those of an adapter."""

    head: ScalarHead
    adapter: str | None


def roll_out(
    base: Base,
    prompts: Sequence[PromptRow],
    packing: Packing,
    *,
    policy: str | None,
    reference: str | None,
    reward: RewardSource,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    critic: Critic | None = None,
    samples_per_prompt: int = 1,
) -> Rollouts:
    """Answer with the policy, score the answers, take log-probs of policy and reference.

    Log-probs are recomputed in one teacher-forced pass rather than kept from decoding, so that the
    first update starts at a probability ratio of 1, to rounding. Without a critic values are 0.
    Raises RewardSourceError for a score that is no finite number.
    """
    with base.use(policy):
        answers = generate(
            base,
            [prompt.tokens for prompt in prompts],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            samples_per_prompt=samples_per_prompt,
        )
    trees = trees_of(prompts, answers)
    scores = checked_scores(reward, Answers(prompts, answers, trees, packing))
    width = max(len(answer.tokens) for answer in answers)
    logps, ref_logps, values = (torch.zeros(len(answers), width) for _ in range(3))
    shared = critic.head if critic is not None and critic.adapter is None else None
    with torch.no_grad():
        for group in own_groups(base, trees, packing):
            raise_if_stopped()
            with base.use(policy):
                rows, new, value = policy_tables(base, shared, group, width, temperature)
            with base.use(reference):
                _, old, _ = policy_tables(base, None, group, width, temperature)
            if critic is not None and critic.adapter is not None:
                with base.use(critic.adapter):
                    _, value = value_table(base, critic.head, group, width, frozen=True)
            logps[rows], ref_logps[rows], values[rows] = new.cpu(), old.cpu(), value.cpu()
    add_up(logps, ref_logps, values)
    return Rollouts(
        answers=answers,
        trees=trees,
        lengths=torch.tensor([len(answer.tokens) for answer in answers]),
        finished=torch.tensor([answer.finished for answer in answers]),
        scores=scores,
        logps=logps,
        ref_logps=ref_logps,
        values=values,
    )
