"""`rows` of a result counts what was trained on, also where an alarm ended the run early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import assistant, events, make_run, result, save_words, user
from training.engine.__main__ import main

ROWS = 20
SHORT, LONG = "w1 w2", "w3 w4 w5"
#: Every other pair contradicts the one before it, so that gradients stay as large as they were.
PAIRS = [
    {
        "id": str(n),
        "prompt": user(f"w{n % 12} w{n // 12}"),
        "chosen": assistant(SHORT if n % 2 else f"{LONG} w{n % 7}"),
        "rejected": assistant(f"{LONG} w{n % 7}" if n % 2 else SHORT),
    }
    for n in range(ROWS)
]
FILES: dict[str, dict[str, list[dict[str, Any]]]] = {
    "pairs": {"train": PAIRS},
    "sft": {
        "train": [{"id": row["id"], "messages": row["prompt"] + row["chosen"]} for row in PAIRS]
    },
    "prompts": {"prompts": [{"id": row["id"], "prompt": row["prompt"]} for row in PAIRS[:6]]},
}
ONLINE = {"updates": ROWS, "samples_per_prompt": 4, "minibatch_size": 4, "max_new_tokens": 4}
#: method: its section, its files, how many rows a point takes.
KINDS: dict[str, tuple[dict[str, Any], str, int]] = {
    "sft": ({}, "sft", 1),
    "reward": ({}, "pairs", 1),
    "dpo": ({}, "pairs", 1),
    "kto": ({}, "pairs", 2),  # answers, of which a pair has two
    "orpo": ({}, "pairs", 1),
    "ppo": (ONLINE | {"episodes_per_update": 4, "epochs": 1, "eval_prompts": 2}, "prompts", 4),
    "grpo": (ONLINE | {"prompts_per_update": 1, "eval_prompts": 2}, "prompts", 4),
    "rloo": (ONLINE | {"prompts_per_update": 1, "eval_prompts": 2}, "prompts", 4),
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_words(tmp_path_factory.mktemp("models") / "words")


@pytest.fixture(scope="module")
def reward_adapter(words: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs") / "reward"
    config = {"method": "reward", "base": {"source": str(words)}, "optim": {"lr": 2e-2}}
    make_run(folder, config, train=PAIRS)
    assert main(["run", str(folder)]) == 0
    return str(folder / "adapter")


@pytest.mark.parametrize("method", KINDS)
def test_rows_are_those_until_the_alarm(
    method: str, words: Path, reward_adapter: str, tmp_path: Path
) -> None:
    section, files, each = KINDS[method]
    if files == "prompts":
        section = section | {"reward_adapter": reward_adapter}
    # rings at the first gradient, from the eleventh on, above the median of the first ten
    alarms = {"window": 1, "grad_norm": "stop", "grad_norm_factor": 1.0001, "not_finite": "off"}
    optim = {"lr": 2e-3, "schedule": "constant", "warmup_ratio": 0.0}
    config = {
        "method": method, "base": {"source": str(words)}, "threads": 1, "alarms": alarms,
        "optim": optim | ({"batch_size": each} if files != "prompts" else {}), method: section,
    }  # fmt: skip
    folder = make_run(tmp_path / "run", config, **FILES[files])
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    found = result(folder)
    assert found["stopped"] is not None, "choose other settings: no gradient was above the median"
    rang = found["stopped"]["step"]
    assert 11 <= rang < ROWS
    assert found["rows"] == rang * each
    assert found["steps"] == found["stopped"]["kept_step"] < rang


def test_an_alarm_that_ended_ppo_is_not_overruled_by_its_kl_budget(
    words: Path, reward_adapter: str, tmp_path: Path
) -> None:
    section = KINDS["ppo"][0] | {"reward_adapter": reward_adapter, "kl_coef": 0.0}
    alarms = {"window": 1, "grad_norm": "stop", "grad_norm_factor": 1.0001, "not_finite": "off"}
    optim = {"lr": 8e-3, "schedule": "constant", "warmup_ratio": 0.0}

    def run(name: str, **more: float) -> tuple[dict[str, Any], list[float]]:
        config = {
            "method": "ppo", "seed": 5, "base": {"source": str(words)}, "threads": 1,
            "alarms": alarms, "optim": optim, "ppo": section | more,
        }  # fmt: skip
        folder = make_run(tmp_path / name, config, **FILES["prompts"])
        assert main(["run", str(folder)]) == 0
        metrics = [e["values"] for e in events(folder) if e["kind"] == "metrics"]
        return result(folder), [values["kl/to_reference"] for values in metrics]

    free, kls = run("free")
    after = free["metrics"]["kl/after"]
    assert after > max(kls), "choose another seed: the end must be farther than any update"
    # a budget that no update passes, and that the measurement behind the alarm does
    both, _ = run("both", kl_budget=(after + max(kls)) / 2)
    assert both["stopped"] == free["stopped"]
    assert (both["steps"], both["rows"]) == (free["steps"], free["rows"])
    assert both["metrics"]["kl/after"] == after
