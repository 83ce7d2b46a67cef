"""Whole runs through the command line on a tiny model: each method learns, stops, and refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.engine.tiny import assistant, events, make_run, preference_row, result, user
from training.engine.__main__ import main
from training.engine.batching import Packing
from training.engine.config import BaseConfig
from training.engine.data import Branch, Tree, prompt_tokens, response_tokens
from training.engine.models import load_base
from training.engine.reward import attach, tree_scores

TRAIN = [preference_row(n) for n in range(24)]
TEST = [preference_row(n) for n in range(100, 108)]
PROMPTS = [{"id": str(n), "prompt": user(f"Question number {n}?")} for n in range(12)]


def config(method: str, base: Path, **sections: Any) -> dict[str, Any]:
    return {"method": method, "base": {"source": str(base)}, **sections}


@pytest.fixture(scope="module")
def reward_run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "reward"
    make_run(
        folder,
        config("reward", tiny, optim={"lr": 1e-2, "batch_size": 4, "epochs": 2}),
        train=TRAIN,
        test=TEST,
    )
    assert main(["run", str(folder)]) == 0
    return folder


def test_the_reward_model_learns(reward_run: Path) -> None:
    found = result(reward_run)
    assert found["status"] == "done"
    assert found["metrics"]["reward/accuracy"] == 1.0
    losses = [e["values"]["loss/train"] for e in events(reward_run) if e["kind"] == "metrics"]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert losses[-1] < 0.1


def test_stock_peft_gives_our_score_with_and_without_the_end(reward_run: Path, tiny: Path) -> None:
    base = load_base(BaseConfig(source=str(tiny)))
    head = attach(base, str(reward_run / "adapter"))
    tokens = prompt_tokens(base, user("Question number 3?"))
    answer = response_tokens(base, "yes indeed 3")
    tree = Tree(tokens, (Branch(answer), Branch(answer[:-1])))
    with base.use("reward"):
        ours = tree_scores(base, head, [tree], Packing(512, shared=True))[0]

    tokenizer = AutoTokenizer.from_pretrained(reward_run / "adapter")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    stock = AutoModelForSequenceClassification.from_pretrained(
        tiny, num_labels=1, pad_token_id=tokenizer.pad_token_id
    )
    stock = PeftModel.from_pretrained(stock, reward_run / "adapter").eval()
    with torch.no_grad():
        theirs = [
            stock(input_ids=torch.tensor([tokens + part])).logits.item()
            for part in (answer, answer[:-1])
        ]
    assert ours.tolist() == pytest.approx(theirs, abs=1e-4)


def test_dpo_learns_and_starts_at_its_reference(tiny: Path, tmp_path: Path) -> None:
    folder = make_run(
        tmp_path / "dpo",
        config("dpo", tiny, optim={"lr": 5e-3, "batch_size": 4, "epochs": 2}),
        train=TRAIN,
        test=TEST,
    )
    assert main(["run", str(folder)]) == 0
    metrics = result(folder)["metrics"]
    assert metrics["dpo/margin_before"] == pytest.approx(0.0, abs=1e-5)
    assert metrics["dpo/margin_after"] > 0.3
    assert metrics["dpo/accuracy_after"] == 1.0


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({"loss": "sigmoid_norm", "beta": 2.0}, 0.693147),
        ({"loss": "robust", "label_smoothing": 0.1}, 0.693147),
        ({"loss": "ipo"}, 25.0),
        ({"nll_weight": 1.0}, 0.693147),
    ],
)
def test_every_dpo_loss_starts_at_its_closed_form_and_learns(
    settings: dict[str, Any], start: float, tiny: Path, tmp_path: Path
) -> None:
    optim = {"lr": 5e-3, "batch_size": 4, "epochs": 2}
    asked = config("dpo", tiny, optim=optim, dpo=settings)
    folder = make_run(tmp_path / "dpo", asked, train=TRAIN, test=TEST)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    curve = [e["values"] for e in events(folder) if e["kind"] == "metrics"]
    assert curve[0]["loss/train"] == pytest.approx(start, rel=1e-4)
    assert curve[-1]["loss/train"] < 0.9 * start
    assert result(folder)["metrics"]["dpo/accuracy_after"] == 1.0
    if "nll_weight" in settings:
        assert curve[-1]["loss/nll"] < 0.9 * curve[0]["loss/nll"]


def test_sft_learns(tiny: Path, tmp_path: Path) -> None:
    rows = [{"id": str(n), "messages": user(f"q {n}") + assistant("yes indeed")} for n in range(16)]
    folder = make_run(
        tmp_path / "sft",
        config("sft", tiny, optim={"lr": 2e-2, "batch_size": 4, "epochs": 3}),
        train=rows,
    )
    assert main(["run", str(folder)]) == 0
    losses = [e["values"]["loss/train"] for e in events(folder) if e["kind"] == "metrics"]
    assert losses[-1] < losses[0] - 2.0


def test_ppo_starts_at_kl_zero_and_keeps_the_reward_adapter(
    reward_run: Path, tiny: Path, tmp_path: Path
) -> None:
    section = {
        "reward_adapter": str(reward_run / "adapter"),
        "updates": 3,
        "episodes_per_update": 8,
        "max_new_tokens": 6,
        "eval_prompts": 8,
    }
    folder = make_run(
        tmp_path / "ppo", config("ppo", tiny, optim={"lr": 5e-3}, ppo=section), prompts=PROMPTS
    )
    assert main(["run", str(folder)]) == 0
    found = result(folder)
    assert found["metrics"]["kl/before"] == pytest.approx(0.0, abs=1e-4)
    assert found["metrics"]["kl/after"] != 0.0
    assert found["rows"] == 24
    first = next(e for e in events(folder) if e["kind"] == "metrics")
    assert first["values"]["kl/k3"] == pytest.approx(0.0, abs=1e-4)


def test_samples_are_the_same_twice(tiny: Path, tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        folder = make_run(
            tmp_path / name,
            config("sample", tiny, sample={"max_new_tokens": 5}),
            prompts=PROMPTS,
        )
        assert main(["run", str(folder)]) == 0
        texts.append((folder / "samples.jsonl").read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == 24


def test_sigterm_writes_a_checkpoint_and_the_next_start_ends_where_it_would_have(
    tiny: Path, tmp_path: Path
) -> None:
    asked = config("dpo", tiny, optim={"lr": 5e-3, "batch_size": 2, "epochs": 8})
    whole = make_run(tmp_path / "whole", asked, train=TRAIN)
    assert main(["run", str(whole)]) == 0
    cut = make_run(tmp_path / "cut", asked, train=TRAIN)
    command = [sys.executable, "-m", "training.engine", "run", str(cut)]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(e["kind"] == "progress" for e in events(cut)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 75
    assert not (cut / "result.json").exists()
    assert main(["run", str(cut)]) == 0
    assert any(e["kind"] == "resumed" for e in events(cut))
    name = "adapter/adapter_model.safetensors"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_a_closed_pipe_ends_the_child(tiny: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "orphan", config("dpo", tiny, optim={"epochs": 200}), train=TRAIN)
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "training.engine", "run", str(folder)]
    child = subprocess.Popen([*command, "--heartbeat-fd", str(read_end)], pass_fds=[read_end])
    os.close(read_end)
    time.sleep(1.0)
    os.close(write_end)
    assert child.wait(60) == 75
    assert not (folder / "result.json").exists()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"method": "dpo", "base": {"source": "demo"}, "bogus": 1}, "bogus"),
        ({"method": "ppo", "base": {"source": "demo"}}, "ppo"),
        ({"method": "dpo", "base": {"source": "/no/such/folder"}}, "no such folder"),
        ({"method": "dpo", "base": {"source": "x", "quantization": "int3"}}, "int3"),
    ],
)
def test_a_wrong_config_is_refused_in_a_sentence(
    broken: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "run", broken, train=TRAIN)
    assert main(["run", str(folder)]) == 1
    shown = capsys.readouterr().err
    assert words in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not json", "line 1"),
        (json.dumps({"prompt": "text"}), "prompt"),
        (json.dumps({"prompt": user("q"), "chosen": assistant("a")}), "rejected"),
    ],
)
def test_a_wrong_row_is_refused_with_its_place(
    line: str, words: str, tiny: Path, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run", config("dpo", tiny))
    (folder / "data" / "train.jsonl").write_text(line + "\n", encoding="utf-8")
    assert main(["run", str(folder)]) == 1
    found = result(folder)
    assert found["status"] == "refused"
    assert words in found["reason"]


def test_a_folder_with_a_finished_run_is_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "run", config("dpo", tiny), train=TRAIN)
    (folder / "result.json").write_text("{}", encoding="utf-8")
    assert main(["run", str(folder)]) == 1
    assert "finished run" in capsys.readouterr().err


def test_pickled_weights_and_custom_code_are_refused(tiny: Path, tmp_path: Path) -> None:
    for name, change in (("pickled", {}), ("custom", {"auto_map": {"AutoModel": "evil.py"}})):
        base = tmp_path / name
        base.mkdir()
        shape = json.loads((tiny / "config.json").read_text(encoding="utf-8")) | change
        (base / "config.json").write_text(json.dumps(shape), encoding="utf-8")
        (base / "pytorch_model.bin").write_bytes(b"never opened")
        folder = make_run(tmp_path / f"run-{name}", config("dpo", base), train=TRAIN)
        assert main(["run", str(folder)]) == 1
        assert result(folder)["reason"].count("refused" if change else "safetensors") >= 1
