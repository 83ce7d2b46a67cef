"""Texts with labels that a small model can learn, and runs that classify them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from tests.engine.tiny import make_run, result
from training.engine.__main__ import main

CUES = {"sport": ("ball", "goal"), "food": ("bread", "soup"), "law": ("court", "judge")}
OTHER = "and of the some all here there now then with"
WORDS = " ".join(word for pair in CUES.values() for word in pair) + " " + OTHER


def texts(count: int, seed: int, labels: tuple[str, ...] = tuple(CUES)) -> list[dict[str, Any]]:
    """Rows whose label follows from one word among others, at any place."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        label = labels[number % len(labels)]
        words = draw.choices(OTHER.split(), k=draw.randint(1, 5))
        words.insert(draw.randrange(len(words) + 1), draw.choice(CUES[label]))
        rows.append({"id": f"{seed}-{number}", "text": " ".join(words), "label": label})
    return rows


TRAIN, TEST = texts(96, 1), texts(30, 2)


TARGETS = {
    "llama": ["q_proj", "v_proj"], "bert": ["query", "value"], "roberta": ["query", "dense"],
    "distilbert": ["q_lin", "lin1"],
}  # fmt: skip


ROW = {"id": "odd", "text": "and of the", "label": "food"}


def asked(source: Path, **more: Any) -> dict[str, Any]:
    kind = AutoConfig.from_pretrained(source).model_type
    config: dict[str, Any] = {
        "method": "classify",
        "base": {"source": str(source)},
        "optim": {"lr": 2e-2, "batch_size": 8, "epochs": 6},
        "threads": 1,
        "row_budget": 64,
    }
    if more.get("tuning") != "full":
        config["adapter"] = {"target_modules": TARGETS[kind], "r": 8}
    for name, value in more.items():
        inner = config.get(name)
        config[name] = {**inner, **value} if isinstance(inner, dict) else value
    return config


def trained(folder: Path, config: dict[str, Any], **files: Any) -> Path:
    make_run(folder, config, **({"train": TRAIN, "test": TEST} | files))
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    return folder
