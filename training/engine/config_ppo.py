"""The `ppo` section of config.json."""

from __future__ import annotations

from dataclasses import dataclass

from training.engine.config_trl import check
from training.engine.endpoint import check_reward_url

PPO_VALUES = ("shared_head", "own_adapter")


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Proximal policy optimization on a learned reward (arXiv 1707.06347, 2403.17031)."""

    reward_adapter: str | None = None
    """Folder of the reward adapter that scores the rollouts. Exactly one source is given."""
    reward_model: str | None = None
    """Or a sequence-classification model with one score: a folder with safetensors, or a Hub id."""
    reward_model_revision: str | None = None
    """Branch, tag or commit of `reward_model` on the Hub."""
    reward_url: str | None = None
    """Or an HTTP endpoint that scores answers: https, or http on this machine."""
    reward_url_timeout_s: float = 60.0
    """Longest wait for one reply of `reward_url`."""
    reward_url_retries: int = 3
    """Further tries after a reply of `reward_url` failed for a reason that may pass."""
    updates: int = 8
    """Rollout-and-update turns."""
    episodes_per_update: int = 8
    """Answers per update (optim.batch_size and optim.epochs are not used)."""
    samples_per_prompt: int = 1
    """Answers to each prompt of an update; they share its pass in decoding and in training."""
    max_new_tokens: int = 48
    """Longest response in tokens."""
    temperature: float = 1.0
    """Sampling temperature; logits are divided by it in policy and reference alike."""
    epochs: int = 4
    """Passes over each rollout buffer."""
    minibatch_size: int = 4
    """Answers per optimizer step; all answers to a prompt are in the same one."""
    kl_coef: float = 0.05
    """Weight of the per-token KL to the reference in the reward; if adaptive, its start."""
    kl_target: float | None = None
    """Adapt kl_coef so that the KL per response stays near this (nats); fixed by default."""
    kl_horizon: int = 10_000
    """Episodes over which the adaptive kl_coef may change by a factor of about e^0.2."""
    kl_budget: float | None = None
    """Stop when the KL per response (nats) passes this, and keep the adapter from before it did."""
    update_kl_stop: float | None = None
    """End an update whose minibatch has moved further than this (k3, nats per token)."""
    normalize_rewards: bool = False
    """Divide scores by their running standard deviation (their mean stays)."""
    value: str = "shared_head"
    """shared_head (on the policy's own states), or own_adapter (a LoRA adapter of its own)."""
    critic_warmup_updates: int = 0
    """First so many updates train the value alone."""
    cliprange: float = 0.2
    """How far the probability ratio may leave 1."""
    dual_clip: float | None = None
    """Bound of the ratio where the advantage is negative (arXiv 1912.09729; 3 there)."""
    cliprange_value: float = 0.2
    """How far a value may leave its rollout's value."""
    vf_coef: float = 0.1
    """Weight of the value loss."""
    gamma: float = 1.0
    """Discount."""
    lam: float = 0.95
    """Lambda of the generalised advantage estimate."""
    missing_eos_penalty: float = 1.0
    """Taken from the score of a response that was cut before it ended itself."""
    whiten_rewards: bool = False
    """Scale rewards to variance 1 (their mean stays)."""
    eval_prompts: int = 16
    """Prompts on which reward and KL are measured before and after."""

    def __post_init__(self) -> None:
        self._check_reward()
        for name in (
            "updates",
            "episodes_per_update",
            "samples_per_prompt",
            "max_new_tokens",
            "epochs",
            "minibatch_size",
        ):
            value = getattr(self, name)
            check(1 <= value <= 100_000, f"ppo.{name}", value, "1 to 100000")
        for name in ("episodes_per_update", "minibatch_size"):
            value, several = getattr(self, name), self.samples_per_prompt
            allowed = f"a multiple of ppo.samples_per_prompt, {several}"
            check(value % several == 0, f"ppo.{name}", value, allowed)
        check(self.value in PPO_VALUES, "ppo.value", self.value, ", ".join(PPO_VALUES))
        check(
            0 <= self.critic_warmup_updates < self.updates,
            "ppo.critic_warmup_updates",
            self.critic_warmup_updates,
            "0 up to below ppo.updates",
        )
        check(self.eval_prompts >= 1, "ppo.eval_prompts", self.eval_prompts, "1 or more")
        check(self.temperature > 0.0, "ppo.temperature", self.temperature, "above 0")
        for name in ("kl_target", "kl_budget", "update_kl_stop"):
            value = getattr(self, name)
            check(value is None or value > 0.0, f"ppo.{name}", value, "above 0, or null")
        check(
            self.dual_clip is None or self.dual_clip > 1.0 + self.cliprange,
            "ppo.dual_clip",
            self.dual_clip,
            "above 1 + ppo.cliprange, or null",
        )
        check(self.kl_horizon >= 1, "ppo.kl_horizon", self.kl_horizon, "1 or more")
        for name in ("kl_coef", "vf_coef", "missing_eos_penalty"):
            value = getattr(self, name)
            check(value >= 0.0, f"ppo.{name}", value, "0 or more")
        for name in ("cliprange", "cliprange_value"):
            value = getattr(self, name)
            check(value > 0.0, f"ppo.{name}", value, "above 0")
        for name in ("gamma", "lam"):
            value = getattr(self, name)
            check(0.0 <= value <= 1.0, f"ppo.{name}", value, "0 to 1")

    def _check_reward(self) -> None:
        sources = ("reward_adapter", "reward_model", "reward_url")
        given = [name for name in sources if getattr(self, name) is not None]
        check(len(given) == 1, "ppo's source of reward", given, f"exactly one of {sources}")
        for name in given:
            value = getattr(self, name)
            check(bool(value), f"ppo.{name}", value, "not empty")
        check(
            self.reward_model_revision is None or self.reward_model is not None,
            "ppo.reward_model_revision",
            self.reward_model_revision,
            "null without ppo.reward_model",
        )
        if self.reward_url is not None:
            check_reward_url(self.reward_url)
        elif (self.reward_url_timeout_s, self.reward_url_retries) != (60.0, 3):
            check(False, "ppo.reward_url", None, "an address, since its timeout or retries are set")
        timeout_s, retries = self.reward_url_timeout_s, self.reward_url_retries
        check(0.0 < timeout_s <= 3600.0, "ppo.reward_url_timeout_s", timeout_s, "above 0 to 3600")
        check(0 <= retries <= 100, "ppo.reward_url_retries", retries, "0 to 100")
