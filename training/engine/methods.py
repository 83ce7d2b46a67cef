"""Which module does what a config's `method` asks for."""

from __future__ import annotations

#: The module of each method; imported only when it runs, because they bring torch.
MODULES = {
    "sft": "training.engine.sft",
    "classify": "training.engine.classify",
    "reward": "training.engine.reward",
    "dpo": "training.engine.dpo",
    "kto": "training.engine.kto",
    "orpo": "training.engine.orpo",
    "ppo": "training.engine.ppo",
    "grpo": "training.engine.grpo",
    "rloo": "training.engine.rloo",
    "evaluate": "training.engine.evaluate",
    "sample": "training.engine.sampling",
    "pretrain": "training.engine.pretrain",
    "judge": "training.engine.judge",
    "answer": "training.engine.answer",
    "compare": "training.engine.compare_run",
}
