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


FEW = {"reward_adapter": REWARD, "updates": 1, "max_new_tokens": 24, "eval_prompts": 4}
OWN = (
    Measured(
        case=REWARD,
        rows="pairs",
        config={"method": "reward"},
        lengths=Lengths(longest=176, mean=100.9375, prompt=103, row=356, rows=16),
        imports_mb=480.5,
        peak_mb=1384.9,
    ),
    Measured(
        case="dpo, NF4, LoRA",
        rows="pairs",
        config={"method": "dpo", "base": {"source": "demo", "quantization": "nf4"}},
        lengths=Lengths(longest=176, mean=100.9375, prompt=103, row=356, rows=16),
        imports_mb=466.0,
        peak_mb=1158.4,
    ),
    Measured(
        case="sft, full",
        rows="conversations",
        config={"method": "sft", "tuning": "full"},
        lengths=Lengths(longest=138, mean=78.3125, prompt=49, row=255, rows=16),
        imports_mb=478.3,
        peak_mb=3061.2,
    ),
    Measured(
        case="classify, MiniLM, full",
        rows="texts",
        config={
            "method": "classify",
            "tuning": "full",
            "base": {"source": "minilm"},
            "optim": {"batch_size": 16, "max_steps": 4},
        },
        lengths=Lengths(longest=83, mean=25.6718, prompt=83, row=505, rows=64),
        imports_mb=447.0,
        peak_mb=978.1,
    ),
    Measured(
        case="ppo, fp32, LoRA",
        rows="prompts",
        config={
            "method": "ppo",
            "optim": {},
            "ppo": {**FEW, "epochs": 1, "episodes_per_update": 4},
        },
        lengths=Lengths(longest=232, mean=127.8461, prompt=208, row=None, rows=13),
        imports_mb=478.9,
        peak_mb=1453.3,
    ),
    Measured(
        case="pretrain, fp32, LoRA",
        rows="documents",
        config={"method": "pretrain", "data": {"max_length": 256, "max_prompt_length": 128}},
        lengths=Lengths(longest=256, mean=236.3846, prompt=1, row=512, rows=13),
        imports_mb=478.3,
        peak_mb=1804.6,
    ),
    Measured(
        case="dpo, fp32, LoRA",
        rows="pairs",
        config={"method": "dpo"},
        lengths=Lengths(longest=176, mean=100.9375, prompt=103, row=356, rows=16),
        imports_mb=479.2,
        peak_mb=1418.8,
    ),
    Measured(
        case="sft, fp32, LoRA",
        rows="conversations",
        config={"method": "sft"},
        lengths=Lengths(longest=138, mean=78.3125, prompt=49, row=255, rows=16),
        imports_mb=479.1,
        peak_mb=1355.2,
    ),
    Measured(
        case="dpo, fp32, LoRA, long rows",
        rows="long pairs",
        config={"method": "dpo", "row_budget": 1024},
        lengths=Lengths(longest=398, mean=230.5384, prompt=208, row=937, rows=13),
        imports_mb=479.3,
        peak_mb=2151.8,
    ),
    Measured(
        case="orpo, fp32, LoRA",
        rows="pairs",
        config={"method": "orpo"},
        lengths=Lengths(longest=141, mean=100.9375, prompt=None, row=None, rows=16),
        imports_mb=568.7,
        peak_mb=3521.2,
    ),
    Measured(
        case="grpo, fp32, LoRA",
        rows="prompts",
        config={"method": "grpo", "optim": {}, "grpo": {**FEW, "prompts_per_update": 2}},
        lengths=Lengths(longest=232, mean=127.8461, prompt=208, row=None, rows=13),
        imports_mb=573.7,
        peak_mb=3817.0,
        remark="about 0.8 GB more than is counted; where they lie was not found out",
    ),
    Measured(
        case="kto, fp32, LoRA",
        rows="pairs",
        config={"method": "kto"},
        lengths=Lengths(longest=141, mean=100.9375, prompt=None, row=None, rows=16),
        imports_mb=568.6,
        peak_mb=1935.5,
    ),
)
#: Those that have been.
MEASURED = tuple(run for run in OWN if run.lengths is not None)
