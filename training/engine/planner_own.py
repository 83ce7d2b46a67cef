"""Peaks of our own runs on a processor, measured, and what the planner says of them.

Packaged bases on real rows, two steps each; `python -m benchmarks.memory` does them again, and does
those that have no numbers yet. Numbers are the runs' own words (result.json): peak, memory after
imports, rows in tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.engine.config import from_dict
from training.engine.planner import Lengths, plan
from training.engine.planner_shapes import packaged_shape

MIB = 2**20
#: Where they ran.
MACHINE = "x86-64, 2 cores, PyTorch 2.13 for processors"
#: The case whose adapter scores the answers of others.
REWARD = "reward, fp32, LoRA"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run: its config, its rows, and MB of memory."""

    case: str
    rows: str
    """Which rows (`benchmarks.memory`)."""
    config: Mapping[str, Any]
    """What differs from `whole`."""
    lengths: Lengths | None = None
    """None, and no memory, where it was not measured yet."""
    imports_mb: float = 0.0
    peak_mb: float = 0.0
    remark: str = ""
    """What speaks against the comparison."""

    @property
    def whole(self) -> dict[str, Any]:
        """config.json, but for the folder of a reward adapter."""
        return {
            "base": {"source": "demo"},
            "data": {"max_length": 512, "max_prompt_length": 256},
            "optim": {"batch_size": 4, "max_steps": 2},
            "row_budget": 512,
            "threads": 2,
            **self.config,
        }

    @property
    def above_mb(self) -> float:
        return self.peak_mb - self.imports_mb

    @property
    def planned_mb(self) -> float:
        config = from_dict(self.whole)
        shape = packaged_shape(config.base.source)
        found = plan(config, shape, None, lengths=self.lengths, device="cpu")
        return found.total_bytes / MIB


#: Of the first three runs: the engine that was measured kept the older, larger tensors.
OLDER = "measured before norms and gated units kept less, and planned with them"
FEW = {"reward_adapter": REWARD, "updates": 1, "max_new_tokens": 24, "eval_prompts": 4}
OWN = (
    Measured(
        case=REWARD,
        rows="pairs",
        config={"method": "reward"},
        lengths=Lengths(longest=176, mean=100.9375, prompt=103, row=428, rows=16),
        imports_mb=477.8,
        peak_mb=1723.4,
        remark=OLDER,
    ),
    Measured(
        case="dpo, NF4, LoRA",
        rows="pairs",
        config={"method": "dpo", "base": {"source": "demo", "quantization": "nf4"}},
    ),
    Measured(case="sft, full", rows="conversations", config={"method": "sft", "tuning": "full"}),
    Measured(
        case="classify, MiniLM, full",
        rows="texts",
        config={
            "method": "classify",
            "tuning": "full",
            "base": {"source": "minilm"},
            "optim": {"batch_size": 16, "max_steps": 4},
        },
    ),
    Measured(
        case="ppo, fp32, LoRA",
        rows="prompts",
        config={
            "method": "ppo",
            "optim": {},
            "ppo": {**FEW, "epochs": 1, "episodes_per_update": 4},
        },
    ),
    Measured(
        case="pretrain, fp32, LoRA",
        rows="documents",
        config={"method": "pretrain", "data": {"max_length": 256, "max_prompt_length": 128}},
    ),
    Measured(
        case="dpo, fp32, LoRA",
        rows="pairs",
        config={"method": "dpo"},
        lengths=Lengths(longest=176, mean=100.9375, prompt=103, row=428, rows=16),
        imports_mb=477.9,
        peak_mb=1786.1,
        remark=OLDER,
    ),
    Measured(
        case="sft, fp32, LoRA",
        rows="conversations",
        config={"method": "sft"},
        lengths=Lengths(longest=138, mean=78.3125, prompt=49, row=327, rows=16),
        imports_mb=477.3,
        peak_mb=1663.6,
        remark=OLDER,
    ),
    Measured(
        case="dpo, fp32, LoRA, long rows",
        rows="long pairs",
        config={"method": "dpo", "row_budget": 1024},
    ),
    Measured(case="orpo, fp32, LoRA", rows="pairs", config={"method": "orpo"}),
    Measured(
        case="grpo, fp32, LoRA",
        rows="prompts",
        config={"method": "grpo", "optim": {}, "grpo": {**FEW, "prompts_per_update": 2}},
    ),
    Measured(case="kto, fp32, LoRA", rows="pairs", config={"method": "kto"}),
)
#: Those that have been.
MEASURED = tuple(run for run in OWN if run.lengths is not None)
