"""The table: what is measured against what, and what each row should reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Side:
    """A function of `benchmarks.training.ours` or `.stock`, and its options."""

    job: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the table. `theirs` is None where there is nothing to stand beside."""

    name: str
    title: str
    unit: str
    ours: Side
    theirs: Side | None
    reach: float | None = None
    """Least ratio of speeds (ours / theirs); for seconds and megabytes the largest."""
    memory_reach: float | None = None
    """Largest ratio of peak memories (ours / theirs)."""
    rounds: int = 2
    limit: float | None = None
    """What our own figure may be at most, where `theirs` is None."""

    @property
    def counts_flops(self) -> bool:
        """Whether its useful work stands beside the machine's matrix peak."""
        return self.ours.job in ("dpo", "reward", "sft") and "quantization" not in self.ours.options

    @property
    def smaller_is_better(self) -> bool:
        return self.unit in ("s", "MB")


def dpo(batch: int, **options: Any) -> Side:
    return Side("dpo", {"batch": batch, **options})


STOCK = "stock TRL 1.16"
ROWS = (
    Row("dpo-4", f"DPO, batch 4, reference pass included, vs {STOCK}", "pairs/s",
        dpo(4, pairs=8), dpo(4, pairs=8), reach=3.5),
    Row("dpo-8", f"DPO, batch 8, 16 pairs, vs {STOCK}", "pairs/s",
        dpo(8, pairs=16), dpo(8, pairs=16), rounds=1),
    Row("dpo-16", f"DPO, batch 16, 16 pairs, vs {STOCK}", "pairs/s",
        dpo(16, pairs=16), dpo(16, pairs=16), rounds=1),
    Row("dpo-short", f"DPO, batch 4, short pairs of few turns, vs {STOCK}", "pairs/s",
        dpo(4, file="short"), dpo(4, file="short"), rounds=1),
    Row("dpo-tuned", "DPO, batch 4, vs TRL 1.16 with precomputed reference, grouped by length",
        "pairs/s", dpo(4, pairs=8), dpo(4, pairs=8, tuned=True), rounds=1),
    Row("dpo-cached", f"DPO, batch 4, reference cached by an earlier run, vs {STOCK}", "pairs/s",
        dpo(4, pairs=8, cached=True), dpo(4, pairs=8), reach=5.0),
    Row("reward", f"reward model, batch 4, vs {STOCK}", "pairs/s",
        Side("reward"), Side("reward"), reach=3.2),
    Row("sft", f"SFT on ragged conversations, batch 4, vs {STOCK}", "tokens/s",
        Side("sft"), Side("sft"), reach=1.8),
    Row("sampling", "sampling, at most 128 new tokens, vs transformers in order of arrival",
        "tokens/s", Side("sampling"), Side("sampling"), reach=1.5),
    Row("ppo", "PPO, value on the policy's states, vs TRL 1.12", "episodes/s",
        Side("ppo"), Side("ppo"), reach=2.3, memory_reach=0.5),
    Row("ppo-own", "PPO, value with an adapter of its own, vs TRL 1.12", "episodes/s",
        Side("ppo", {"value": "own_adapter"}), Side("ppo"), reach=1.4, memory_reach=0.5, rounds=1),
    Row("ppo-samples", "PPO, 4 samples per prompt, vs TRL 1.12 with 1", "episodes/s",
        Side("ppo", {"samples_per_prompt": 4}), Side("ppo"), memory_reach=0.5, rounds=1),
    Row("start", "DPO from start to first step, second time vs first", "s",
        Side("start", {"warm": True}), Side("start", {"warm": False}), reach=0.3),
    Row("memory", "DPO, batch 4, NF4 and LoRA: peak memory", "MB",
        dpo(4, quantization="nf4", pairs=16), None, limit=2500.0, rounds=1),
)  # fmt: skip
