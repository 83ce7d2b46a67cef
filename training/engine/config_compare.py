"""Section of config.json for several approaches to one task; see `config`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from training.engine.config_trl import check

APPROACHES = {
    "prompting": "Prompting",
    "rag": "RAG",
    "sft": "SFT (LoRA)",
    "pretrain_sft": "Continued pretraining + SFT",
}


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Prompting, RAG and fine-tuning on one task (docs/methods/compare.md names the sections)."""

    name: str = "task"
    """What people call the task."""
    approaches: tuple[str, ...] = tuple(APPROACHES)
    """Which are tried, in this order."""
    answer: dict[str, Any] = field(default_factory=dict)
    """The section `answer` of every approach."""
    prompting: dict[str, Any] = field(default_factory=dict)
    """What prompting sets beyond that: {"answer"}."""
    rag: dict[str, Any] = field(default_factory=dict)
    """What RAG sets beyond that: {"index", "answer"}."""
    sft: dict[str, Any] = field(default_factory=dict)
    """What SFT sets beyond that: {"sft", "answer"}."""
    pretrain_sft: dict[str, Any] = field(default_factory=dict)
    """What pretraining and SFT set beyond that: {"pretrain", "sft", "answer"}."""

    def __post_init__(self) -> None:
        known = bool(self.approaches) and set(self.approaches) <= set(APPROACHES)
        once = len(set(self.approaches)) == len(self.approaches)
        what = f"some of {', '.join(APPROACHES)}, each once"
        check(known and once, "compare.approaches", self.approaches, what)
