"""Run folders for the examples of docs/methods: `python docs/methods/example.py FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PAIRS = [
    (
        "What is the capital of France?",
        "The capital of France is Paris.",
        "I do not know, look it up.",
    ),
    (
        "How do I boil an egg?",
        "Put it into boiling water for eight minutes.",
        "Eggs are bad, ask somebody else.",
    ),
    ("Name a prime above ten.", "Eleven is a prime above ten.", "Twelve, I would say."),
    ("What colour is the sky?", "On a clear day it is blue.", "That is a silly question."),
]


def says(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def row(number: int, prompt: str, chosen: str, rejected: str, **label: Any) -> dict[str, Any]:
    return {
        "id": str(number),
        "prompt_id": str(number),
        "prompt": says("user", prompt),
        "chosen": says("assistant", chosen),
        "rejected": says("assistant", rejected),
        **label,
    }


def write(folder: Path, method: str, epochs: int, lr: float, section: dict[str, Any]) -> None:
    decided = [
        row(number, *pair, probability=1.0, weight=3.0, margin=0.6)
        for number, pair in enumerate(PAIRS)
    ]
    tied = [
        row(4, "Say hello.", "Hello!", "Hello.", tie=True),
        row(5, "Say thanks.", "Thank you.", "Thanks.", tie=0.6, probability=0.6),
    ]
    train = [*decided, *tied]
    files = {"train": train, "test": decided}
    if method == "sft":
        files = {"train": [{"id": r["id"], "messages": r["prompt"] + r["chosen"]} for r in train]}
    optim = {"lr": lr, "batch_size": 6, "epochs": epochs}
    config = {"method": method, "base": {"source": "demo"}, "optim": optim, method: section}
    (folder / "data").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    for name, rows in files.items():
        lines = "".join(json.dumps(each) + "\n" for each in rows)
        (folder / "data" / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def main() -> None:
    folder = Path(sys.argv[1])
    write(folder / "sft", "sft", 4, 5e-4, {})
    write(folder / "dpo", "dpo", 3, 1e-4, {"margin": True})
    reward = {"ties": "rao_kupper", "normalize": "mean_std", "ensemble": 4, "conservative": 1.0}
    write(folder / "reward", "reward", 3, 5e-4, reward)


if __name__ == "__main__":
    main()
