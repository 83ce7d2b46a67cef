"""REINFORCE leave-one-out, by TRL's RLOOTrainer (Ahmadian et al. 2024, arXiv 2402.14740).

The baseline of an answer is the mean reward of the other answers to its prompt; the KL to the
reference (estimator k1) is taken from the reward. TRL clips the ratio of whole answers. Differs
from TRL's own loop: see `online`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import Dataset
from trl import RLOOConfig as TRLConfig
from trl import RLOOTrainer

from training.engine import online
from training.engine.rundir import RunDir
from training.engine.trainers import without_telemetry

#: TRL's figures under our names.
NAMES = {
    "entropy": "entropy/full",
    "clip_ratio/region_mean": "rloo/clip_fraction",
    "reward_std": "reward/std",
    "frac_reward_zero_std": "reward/same",
}


class Trainer(RLOOTrainer):
    """Takes prompts, answers and scores from `answering`."""

    answering: online.Answering

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return self.answering.prompt_ids(), None, {}

    def _generate_single_turn(self, *arguments: Any) -> list[list[int]]:
        return self.answering.write()


def train(run: RunDir) -> dict[str, Any]:
    """Train the policy adapter on data.prompts and save it. Returns the result."""
    settings = run.config.rloo
    assert settings is not None  # noqa: S101 - the config guarantees it

    def build(folder: str, model: Any, tokenizer: Any, reward: Callable[..., list[float]]) -> Any:
        asked = TRLConfig(
            **online.trl_arguments(run, folder, settings),
            normalize_advantages=settings.normalize_advantages,
        )
        # prompts reach the trainer without passing a dataset; the constructor wants to see one
        return without_telemetry(Trainer)(
            model=model,
            reward_funcs=[reward],
            args=asked,
            train_dataset=Dataset.from_list([{"prompt": "Q"}]),
            processing_class=tokenizer,
        )

    return online.train(run, settings, build, NAMES, kl="kl/to_reference")
