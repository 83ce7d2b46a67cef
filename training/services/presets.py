"""Default settings of every stage of a round, in one place.

They suit a small base on two processor cores; a round's config overrides them, section by
section. What is asked is validated by the engine's own config before a job exists.
"""

from __future__ import annotations

import copy
from typing import Any

LORA: dict[str, Any] = {
    "r": 16,
    "alpha": 32,
    "dropout": 0.0,
    "target_modules": ["q_proj", "v_proj"],
}

#: Instead of a stage's own where every weight is trained: an adapter's rate would undo the base.
FULL_LR = 1e-5

STAGES: dict[str, dict[str, Any]] = {
    "sft": {"optim": {"lr": 2e-4, "batch_size": 8, "epochs": 1}, "row_budget": 512},
    "reward": {
        "optim": {"lr": 5e-4, "batch_size": 8, "epochs": 1},
        "row_budget": 512,
        "reward": {"centring": 0.01},
    },
    "dpo": {
        "optim": {"lr": 1e-4, "batch_size": 8, "epochs": 1},
        "row_budget": 512,
        "dpo": {"beta": 0.1},
    },
    "kto": {
        "optim": {"lr": 1e-4, "batch_size": 8, "epochs": 1},
        "row_budget": 512,
        "kto": {"beta": 0.1},
    },
    "orpo": {
        "optim": {"lr": 1e-4, "batch_size": 4, "epochs": 1},
        "row_budget": 512,
        "orpo": {"beta": 0.1},
    },
    "ppo": {
        "optim": {"lr": 1e-4, "adam_eps": 1e-5, "warmup_ratio": 0.0},
        "row_budget": 512,
        "ppo": {
            "updates": 8,
            "episodes_per_update": 8,
            "max_new_tokens": 40,
            "epochs": 2,
            "kl_coef": 0.05,
        },
    },
    "grpo": {
        "optim": {"lr": 1e-4, "adam_eps": 1e-5, "warmup_ratio": 0.0},
        "row_budget": 512,
        "grpo": {
            "updates": 8,
            "prompts_per_update": 2,
            "samples_per_prompt": 4,
            "max_new_tokens": 40,
            "beta": 0.05,
        },
    },
    "rloo": {
        "optim": {"lr": 1e-4, "adam_eps": 1e-5, "warmup_ratio": 0.0},
        "row_budget": 512,
        "rloo": {
            "updates": 8,
            "prompts_per_update": 2,
            "samples_per_prompt": 4,
            "max_new_tokens": 40,
            "beta": 0.05,
        },
    },
    "pretrain": {"optim": {"lr": 2e-4, "batch_size": 8, "epochs": 1}, "row_budget": 512},
    "classify": {"optim": {"lr": 2e-4, "batch_size": 8, "epochs": 3}, "row_budget": 512},
    "answer": {"row_budget": 512, "answer": {"max_new_tokens": 32, "k": 3, "mode": "bm25"}},
    "compare": {
        "row_budget": 512,
        "compare": {
            "answer": {"max_new_tokens": 32},
            "rag": {"index": {"dense": False}, "answer": {"k": 3}},
            "sft": {"sft": {"optim": {"lr": 2e-4, "batch_size": 8, "epochs": 1}}},
            "pretrain_sft": {
                "pretrain": {"optim": {"lr": 2e-4, "batch_size": 8, "epochs": 1}},
                "sft": {"optim": {"lr": 2e-4, "batch_size": 8, "epochs": 1}},
            },
        },
    },
    "evaluate": {
        "row_budget": 512,
        "evaluate": {
            "generate": 8,
            "max_new_tokens": 40,
            "general": True,
            "gate": 0.2,
            "probe_gate": 0.1,
        },
    },
    "sample": {"sample": {"samples_per_prompt": 2, "max_new_tokens": 64, "temperature": 1.0}},
}


def merged(stage: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """The preset of a stage with `overrides` laid over it, section by section."""
    result = copy.deepcopy(STAGES[stage])
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = {**result[key], **value}
        else:
            result[key] = value
    return result
