"""Sections of config.json for the methods that run through TRL's trainers; see `config`."""

from __future__ import annotations

from dataclasses import dataclass

from training.engine.errors import ConfigError

GRPO_LOSSES = ("dapo", "grpo", "bnpo", "dr_grpo")


def check(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raise a ConfigError that says field, value and what is allowed."""
    if not condition:
        raise ConfigError(f"{name} is {value!r}; allowed: {allowed}")


@dataclass(frozen=True, kw_only=True)
class KTOConfig:
    """Kahneman-Tversky optimization through TRL (arXiv 2402.01306)."""

    beta: float = 0.1
    """Strength of the pull to the reference."""
    desirable_weight: float = 1.0
    """Weight of desirable answers; where they are fewer, raise it (equation 8 of the paper)."""
    undesirable_weight: float = 1.0
    """Weight of undesirable answers."""

    def __post_init__(self) -> None:
        for name in ("beta", "desirable_weight", "undesirable_weight"):
            value = getattr(self, name)
            check(value > 0.0, f"kto.{name}", value, "above 0")


@dataclass(frozen=True, kw_only=True)
class ORPOConfig:
    """Odds-ratio preference optimization through TRL (arXiv 2403.07691)."""

    beta: float = 0.1
    """Weight of the odds-ratio term beside the likelihood (the paper's lambda)."""

    def __post_init__(self) -> None:
        check(self.beta > 0.0, "orpo.beta", self.beta, "above 0")


@dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """What GRPO and RLOO have in common: answers to prompts, scored by a reward adapter."""

    reward_adapter: str
    """Folder of the reward adapter that scores the answers."""
    updates: int = 8
    """Rollout-and-update turns."""
    prompts_per_update: int = 2
    """Prompts answered per update (optim.batch_size and optim.epochs are not used)."""
    samples_per_prompt: int = 4
    """Answers to each prompt, which are compared with each other."""
    max_new_tokens: int = 48
    """Longest response in tokens."""
    temperature: float = 1.0
    """Sampling temperature; logits are divided by it in policy and reference alike."""
    epochs: int = 1
    """Passes over the answers of an update."""
    minibatch_size: int = 8
    """Answers per optimizer step; memory grows with it. Divides an update's answers."""
    beta: float = 0.05
    """Weight of the KL to the reference; 0 leaves it out."""
    epsilon: float = 0.2
    """How far the probability ratio may leave 1."""
    missing_eos_penalty: float = 1.0
    """Taken from the score of a response that was cut before it ended itself."""
    eval_prompts: int = 16
    """Prompts on which reward and KL are measured before and after."""

    @property
    def answers_per_update(self) -> int:
        return self.prompts_per_update * self.samples_per_prompt

    @property
    def minibatches(self) -> int:
        """Optimizer steps of one pass over an update's answers."""
        return self.answers_per_update // self.minibatch_size

    def check_online(self, section: str) -> None:
        """Raise a ConfigError for a field out of range; `section` names it in messages."""
        adapter = f"{section}.reward_adapter"
        check(bool(self.reward_adapter), adapter, self.reward_adapter, "a folder")
        for name in (
            "updates",
            "prompts_per_update",
            "max_new_tokens",
            "epochs",
            "minibatch_size",
            "eval_prompts",
        ):
            value = getattr(self, name)
            check(1 <= value <= 100_000, f"{section}.{name}", value, "1 to 100000")
        check(
            2 <= self.samples_per_prompt <= 1024,
            f"{section}.samples_per_prompt",
            self.samples_per_prompt,
            "2 to 1024 (an answer is compared with the others to its prompt)",
        )
        check(
            self.answers_per_update % self.minibatch_size == 0,
            f"{section}.minibatch_size",
            self.minibatch_size,
            f"a divisor of the {self.answers_per_update} answers of an update",
        )
        for name in ("temperature", "epsilon"):
            value = getattr(self, name)
            check(value > 0.0, f"{section}.{name}", value, "above 0")
        for name in ("beta", "missing_eos_penalty"):
            value = getattr(self, name)
            check(value >= 0.0, f"{section}.{name}", value, "0 or more")


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(OnlineConfig):
    """Group relative policy optimization through TRL (arXiv 2402.03300)."""

    loss: str = "dapo"
    """How tokens are averaged: dapo (all tokens of the update alike), grpo (per answer first, as
    in the paper), bnpo (all tokens of the minibatch alike), dr_grpo (by a constant length)."""
    scale_rewards: str = "group"
    """Divide advantages by the standard deviation of the group or the batch; none: not at all."""

    def __post_init__(self) -> None:
        self.check_online("grpo")
        check(self.loss in GRPO_LOSSES, "grpo.loss", self.loss, ", ".join(GRPO_LOSSES))
        check(
            self.scale_rewards in ("group", "batch", "none"),
            "grpo.scale_rewards",
            self.scale_rewards,
            "group, batch, none",
        )


@dataclass(frozen=True, kw_only=True)
class RLOOConfig(OnlineConfig):
    """REINFORCE leave-one-out through TRL (arXiv 2402.14740)."""

    normalize_advantages: bool = False
    """Scale the advantages of an update to mean 0 and variance 1."""

    def __post_init__(self) -> None:
        self.check_online("rloo")
