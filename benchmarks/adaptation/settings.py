"""What every run of the benchmark is: the settings that its table was measured with."""

from __future__ import annotations

from typing import Any

THREADS = 2
#: Held-out texts that prompts are measured on, the first ones: each takes a pass over all labels.
PROMPTED = 100
#: All linear layers of SmolLM2.
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

MINILM: dict[str, Any] = {
    "method": "classify",
    "tuning": "full",
    "threads": THREADS,
    "base": {"source": "minilm"},
    "data": {"max_length": 128, "max_prompt_length": 64},
    "optim": {"lr": 3e-4, "batch_size": 8, "epochs": 12, "warmup_ratio": 0.1},
}
#: Of all 77 intents, whose rows make twice as many steps in half the epochs.
MINILM_ALL: dict[str, Any] = MINILM | {"optim": MINILM["optim"] | {"epochs": 6}}
SMS: dict[str, Any] = MINILM | {"optim": {"lr": 5e-4, "batch_size": 16, "epochs": 3}}
SMOLLM2: dict[str, Any] = {
    "method": "classify",
    "threads": THREADS,
    "base": {"source": "demo"},
    "adapter": {"r": 16, "alpha": 32, "target_modules": LINEAR},
    "data": {"max_length": 128, "max_prompt_length": 64},
    "optim": {"lr": 1e-3, "batch_size": 16, "epochs": 3},
}


def prompting(labels: list[str], examples: int) -> dict[str, Any]:
    """The most probable label under SmolLM2, told all of them; examples: similar ones shown."""
    said = "Name the intent of the customer's message. The intents: " + "; ".join(labels) + "."
    return {
        "method": "answer",
        "threads": THREADS,
        "base": {"source": "demo"},
        "data": {"max_test_rows": PROMPTED},
        "answer": {
            "task": "labels",
            "labels": labels,
            "block": 1,
            "prompt": {
                "name": "intent",
                "system": said,
                "user": "{question}",
                "examples": examples,
            },
        },
    }


PRETRAIN: dict[str, Any] = {
    "method": "pretrain",
    "threads": THREADS,
    "base": {"source": "demo"},
    "adapter": {"r": 16, "alpha": 32, "target_modules": LINEAR},
    "data": {"max_length": 256, "max_prompt_length": 128},
    "optim": {"lr": 1e-3, "batch_size": 2, "epochs": 1},
}
#: One task for prompting, RAG, SFT, and continued pretraining with SFT; files are added to it.
COMPARE: dict[str, Any] = {
    "name": "XQuAD in English",
    "run": {
        "base": {"source": "demo"},
        "threads": THREADS,
        "adapter": {"r": 16, "alpha": 32, "target_modules": LINEAR},
        "data": {"max_length": 1024, "max_prompt_length": 900},
    },
    "answer": {
        "task": "text",
        "max_new_tokens": 16,
        "block": 1,
        "prompt": {"system": "Answer the question with a few words, and nothing else."},
    },
    "rag": {"answer": {"k": 2, "prompt": {"user": "{passages}\n\n{question}"}}},
    "sft": {"sft": {"optim": {"lr": 5e-4, "batch_size": 8, "epochs": 2}}},
    "pretrain_sft": {
        "pretrain": {
            "data": {"max_length": 256, "max_prompt_length": 128},
            "optim": {"lr": 1e-3, "batch_size": 2, "epochs": 1},
        },
        "sft": {"optim": {"lr": 5e-4, "batch_size": 8, "epochs": 2}},
    },
}
