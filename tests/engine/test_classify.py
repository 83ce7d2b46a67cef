"""Sequence classification: it learns, goes on exactly, measures, and stock loads what it saved."""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from tests.engine.test_resume import curve, killed_after
from tests.engine.tiny import events, make_run, result, save_encoder, save_words
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


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """`main` takes over the process's signals; pytest wants its own back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_words(tmp_path_factory.mktemp("models") / "words", words=WORDS, num_hidden_layers=2)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("models") / "bert", "bert", words=WORDS)


BASES = ("llama", "bert")


@pytest.fixture(params=BASES)
def source(request: pytest.FixtureRequest) -> Path:
    """Each kind of base in turn."""
    found: Path = request.getfixturevalue(request.param)
    return found


TARGETS = {
    "llama": ["q_proj", "v_proj"], "bert": ["query", "value"], "roberta": ["query", "dense"],
    "distilbert": ["q_lin", "lin1"],
}  # fmt: skip


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


def stock(run: Path, source: Path) -> Any:
    """What was saved, loaded by transformers and PEFT alone."""
    if (run / "model").exists():
        return AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    named = AutoConfig.from_pretrained(run / "adapter")
    model = AutoModelForSequenceClassification.from_pretrained(source, config=named)
    return PeftModel.from_pretrained(model, run / "adapter").eval()


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_it_learns_and_stock_transformers_says_the_same(
    source: Path, tuning: str, tmp_path: Path
) -> None:
    lr = 2e-2 if tuning == "lora" else 3e-3
    run = trained(tmp_path / "run", asked(source, tuning=tuning, optim={"lr": lr}))
    points = curve(run)
    assert points[1]["loss/train"] == pytest.approx(math.log(3), abs=1e-4)
    found = result(run)
    assert found["metrics"]["loss/train"] < 0.5
    assert found["metrics"]["classify/accuracy"] > 0.8  # a third by chance

    model = stock(run, source)
    saved = run / ("adapter" if tuning == "lora" else "model")
    tokenizer = AutoTokenizer.from_pretrained(saved)
    # as given, classes are sorted by name
    assert model.config.id2label == {0: "food", 1: "law", 2: "sport"}
    batch = tokenizer([row["text"] for row in TEST], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    targets = torch.tensor([model.config.label2id[row["label"]] for row in TEST])
    right = (logits.argmax(-1) == targets).float().mean().item()
    assert right == pytest.approx(found["metrics"]["classify/accuracy"])


def test_two_runs_are_equal_and_a_killed_one_ends_the_same(source: Path, tmp_path: Path) -> None:
    config = asked(source, adapter={"dropout": 0.2}, checkpoint_every=1, checkpoint_keep=0)
    config["optim"] |= {"epochs": 1, "max_steps": 6}
    whole, again = (trained(tmp_path / name, config) for name in ("whole", "again"))
    weights = "adapter/adapter_model.safetensors"
    assert (whole / weights).read_bytes() == (again / weights).read_bytes()
    assert curve(whole) == curve(again)
    for step in (1, 4, 6):
        cut = killed_after(whole, step, tmp_path / f"cut-{step}")
        assert main(["run", str(cut)]) == 0, result(cut)["reason"]
        assert [e["step"] for e in events(cut) if e["kind"] == "resumed"] == [step]
        assert (cut / weights).read_bytes() == (whole / weights).read_bytes()
        assert curve(cut) == curve(whole)
        assert result(cut)["metrics"] == result(whole)["metrics"]
