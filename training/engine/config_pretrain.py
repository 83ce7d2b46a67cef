"""Section of config.json for continued pretraining; see `config`."""

from __future__ import annotations

from dataclasses import dataclass

from training.engine.config_trl import check


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Continued pretraining: cross-entropy on every token of raw text."""

    replay: float = 0.0
    """Share of the training windows that are general text, from data/replay.jsonl."""

    def __post_init__(self) -> None:
        check(0.0 <= self.replay < 1.0, "pretrain.replay", self.replay, "0 up to below 1")
