"""What both sides are given, each in its own words."""

from __future__ import annotations

from typing import Any

THREADS = 2
LR, BETA, RANK, ALPHA, TARGETS, MAX_LENGTH = 1e-4, 0.1, 16, 32, ["q_proj", "v_proj"], 1024
#: PPO: prompts are answered once each unless a row says otherwise.
EPISODES, EPISODES_PER_UPDATE, PPO_EPOCHS, PPO_TOKENS = 4, 4, 4, 48
#: Sampling.
PROMPTS, NEW_TOKENS, SAMPLING_BATCH = 20, 128, 8
#: Rows on which both sides' figures are compared: one batch, whatever the work timed.
COMPARED = 4
#: Seed of the head that scores on both sides.
HEAD_SEED, HEAD_STD = 11, 0.02


def base(quantization: str = "none") -> dict[str, Any]:
    return {"source": "demo", "quantization": quantization, "dtype": "float32"}


ADAPTER = {"r": RANK, "alpha": ALPHA, "target_modules": TARGETS}
