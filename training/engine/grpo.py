"""Group relative policy optimization, by TRL's GRPOTrainer (Shao et al. 2024, arXiv 2402.03300).

The advantage of an answer is its reward less the mean of its group, over the group's standard
deviation; the KL to the reference is a term of the loss (estimator k3). Differs from TRL's own
loop: see `online`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import Dataset
from trl import GRPOConfig as TRLConfig
from trl import GRPOTrainer

from training.engine import online
from training.engine.rundir import RunDir
from training.engine.trainers import without_telemetry

#: TRL's figures under our names.
NAMES = {
    "entropy": "entropy/full",
    "clip_ratio/region_mean": "clip/fraction",
    "reward_std": "reward/std",
    "frac_reward_zero_std": "reward/same",
}


class Trainer(GRPOTrainer):
    """Takes prompts, answers and scores from `answering`."""

    answering: online.Answering

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return self.answering.prompt_ids(), None, {}

    def _generate_single_turn(self, *arguments: Any) -> tuple[list[list[int]], None]:
        return self.answering.write(), None


def train(run: RunDir) -> dict[str, Any]:
    """Train the policy adapter on data.prompts and save it. Returns the result."""
    settings = run.config.grpo
    assert settings is not None  # noqa: S101 - the config guarantees it

    def build(folder: str, model: Any, tokenizer: Any, reward: Callable[..., list[float]]) -> Any:
        asked = TRLConfig(
            **online.trl_arguments(run, folder, settings),
            loss_type=settings.loss,
            scale_rewards=settings.scale_rewards,
        )
        # prompts reach the trainer without passing a dataset; the constructor wants to see one
        return without_telemetry(Trainer)(
            model=model,
            reward_funcs=[reward],
            args=asked,
            train_dataset=Dataset.from_list([{"prompt": "Q"}]),
            processing_class=tokenizer,
        )

    return online.train(run, settings, build, NAMES, kl="kl/k3")
