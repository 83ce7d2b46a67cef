"""Peaks of our own runs on a processor, measured, and what the planner says of them.

The packaged SmolLM2-135M on 16 pairs of real conversations (HH-RLHF, helpful), two steps each. The
runs' own words (result.json): peak, memory after imports, rows in tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.engine.config import from_dict
from training.engine.planner import Lengths, plan
from training.engine.planner_shapes import packaged_shape

MIB = 2**20
#: Where they ran.
MACHINE = "x86-64, 2 cores, PyTorch 2.13 for processors"
DATA = {"max_length": 512, "max_prompt_length": 256}
TWO = {"batch_size": 4, "max_steps": 2}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run: its config without the base, its rows, and MB of memory."""

    case: str
    config: dict[str, Any]
    lengths: Lengths
    imports_mb: float
    peak_mb: float

    @property
    def above_mb(self) -> float:
        return self.peak_mb - self.imports_mb

    @property
    def planned_mb(self) -> float:
        config = from_dict({"base": {"source": "demo"}, "data": DATA, **self.config})
        found = plan(config, packaged_shape("demo"), None, lengths=self.lengths, device="cpu")
        return found.total_bytes / MIB


OWN = (
    Measured(
        case="sft, fp32, LoRA",
        config={"method": "sft", "optim": TWO},
        lengths=Lengths(longest=138, mean=78.3125, prompt=49, row=327, rows=16),
        imports_mb=477.3,
        peak_mb=1663.6,
    ),
    Measured(
        case="reward, fp32, LoRA",
        config={"method": "reward", "optim": TWO, "row_budget": 512},
        lengths=Lengths(longest=176, mean=100.9375, prompt=103, row=428, rows=16),
        imports_mb=477.8,
        peak_mb=1723.4,
    ),
    Measured(
        case="dpo, fp32, LoRA",
        config={"method": "dpo", "optim": TWO, "row_budget": 512},
        lengths=Lengths(longest=176, mean=100.9375, prompt=103, row=428, rows=16),
        imports_mb=477.9,
        peak_mb=1786.1,
    ),
)
