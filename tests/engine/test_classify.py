"""Sequence classification: it learns, goes on exactly, measures, and stock loads what it saved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.models.bert.modeling_bert import BertModel
from transformers.models.llama.modeling_llama import LlamaModel
from transformers.trainer_pt_utils import LabelSmoother

from tests.engine.interrupting import terminated_in
from tests.engine.labelled import CUES, ROW, TEST, TRAIN, WORDS, asked, trained
from tests.engine.test_distributed import assert_same, together
from tests.engine.test_resume import curve, killed_after
from tests.engine.tiny import events, make_run, result, save_encoder
from training.engine.__main__ import main
from training.engine.classify import load, row_losses
from training.engine.classify_data import (
    Labelled,
    encode_labelled,
    labels_of,
    row_weights,
)
from training.engine.config import BaseConfig
from training.engine.encoders import HEAD_NAMES
from training.engine.errors import BaseModelError
from training.engine.merging import merge
from training.engine.quantization import keep_differentiable, quantization_config
from training.engine.rundir import RunDir
from training.engine.scores import load_score_head

BASES = ("llama", "bert")


@pytest.fixture(params=BASES)
def source(request: pytest.FixtureRequest) -> Path:
    """Each kind of base in turn."""
    found: Path = request.getfixturevalue(request.param)
    return found


#: Quantized linear layers of the two blocks, by the base's folder; heads and poolers are none of
#: them, nor PEFT's layers around them.
LINEARS = {"words": 2 * 7, "bert": 2 * 6}


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
    # the loss that transformers computes itself
    with torch.no_grad():
        loss = model(**batch, labels=targets).loss.item()
    assert loss == pytest.approx(found["metrics"]["classify/log_loss"], abs=1e-4)
    assert found["classification"]["labels"] == ["food", "law", "sport"]
    assert [sum(line) for line in found["classification"]["confusion"]] == [10, 10, 10]


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


def test_a_signal_inside_a_step_stops_it_and_it_ends_the_same(source: Path, tmp_path: Path) -> None:
    config = asked(
        source, tuning="full", checkpoint_every_s=0.0, optim={"lr": 3e-3, "max_steps": 5}
    )
    whole = trained(tmp_path / "whole", config)
    cut = make_run(tmp_path / "cut", config, train=TRAIN, test=TEST)
    with terminated_in(5, LlamaModel, BertModel):
        assert main(["run", str(cut)]) == 75
    assert not (cut / "result.json").exists()
    assert main(["run", str(cut)]) == 0
    assert len([e for e in events(cut) if e["kind"] == "resumed"]) == 1
    weights = "model/model.safetensors"
    assert (cut / weights).read_bytes() == (whole / weights).read_bytes()
    assert curve(cut) == curve(whole)
    assert result(cut)["classification"] == result(whole)["classification"]


def test_two_processes_train_what_one_does(llama: Path, bert: Path, tmp_path: Path) -> None:
    optim = {"lr": 5e-3, "max_steps": 4}
    both = {"llama": asked(llama, optim=optim), "bert": asked(bert, optim=optim)}
    alone = {name: trained(tmp_path / f"{name}-1", config) for name, config in both.items()}
    shared = {
        name: make_run(tmp_path / f"{name}-2", config, train=TRAIN, test=TEST)
        for name, config in both.items()
    }
    ended = together([*shared.values()])
    assert [each.stdout.split() for each in ended] == [["0", "0"]] * 2, ended
    for name, folder in shared.items():
        assert_same(alone[name], folder)
        mine, theirs = result(alone[name])["metrics"], result(folder)["metrics"]
        assert mine == pytest.approx(theirs, abs=1e-4)


# What is saved ----------------------------------------------------------------------------------


def untrained(folder: Path, config: dict[str, Any]) -> tuple[Path, torch.Tensor]:
    """A classifier whose trained weights are noise, saved; and its logits of the test rows."""
    run = RunDir(make_run(folder, config, train=TRAIN, test=TEST))
    torch.manual_seed(3)
    assert run.config.classify is not None
    labels = labels_of(TRAIN, TEST, run.config.classify)
    model = load(run, labels)
    with torch.no_grad():
        for parameter in model.parameters.values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    rows = encode_labelled(model.base, TEST, labels, 40, run.events, "test")
    with model.base.use(model.trained.adapter):
        logits = model.logits_of([row.tokens for row in rows])
    (saved,) = model.save(run).values()
    return run.path / saved, logits


def stock_logits(model: Any, saved: Path) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(saved)
    batch = tokenizer([row["text"] for row in TEST], padding=True, return_tensors="pt")
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**batch).logits
    return found


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("kind", ["llama", "bert", "roberta", "distilbert"])
def test_stock_transformers_gives_our_logits(
    kind: str, tuning: str, llama: Path, bert: Path, tmp_path: Path
) -> None:
    known = {"llama": llama, "bert": bert}
    source = known.get(kind) or save_encoder(tmp_path / kind, kind, words=WORDS)
    saved, ours = untrained(tmp_path / "run", asked(source, tuning=tuning))
    if tuning == "full":
        model = AutoModelForSequenceClassification.from_pretrained(saved)
    else:
        named = AutoConfig.from_pretrained(saved)
        model = AutoModelForSequenceClassification.from_pretrained(source, config=named)
        model = PeftModel.from_pretrained(model, saved)
    torch.testing.assert_close(stock_logits(model, saved), ours, atol=1e-4, rtol=0)
    assert ours.std() > 0.05  # noise reached every part
    assert model.config.id2label == {0: "food", 1: "law", 2: "sport"}
    assert model.config.label2id == {"food": 0, "law": 1, "sport": 2}


def test_a_4_bit_base_trains_a_head_in_full_precision(source: Path, tmp_path: Path) -> None:
    eight = asked(source, base={"quantization": "int8"}, optim={"max_steps": 3})
    run = trained(tmp_path / "int8", eight)
    (start,) = [event for event in events(run) if event["kind"] == "start"]
    assert start["layers_8bit"] == LINEARS[source.name]
    config = asked(source, base={"quantization": "nf4"}, optim={"max_steps": 3})
    run = trained(tmp_path / "trained", config)
    (start,) = [event for event in events(run) if event["kind"] == "start"]
    assert start["layers_4bit"] == LINEARS[source.name]
    saved, ours = untrained(tmp_path / "run", config)
    named = AutoConfig.from_pretrained(saved)
    held = quantization_config(
        BaseConfig(source=str(source), quantization="nf4"), keep=(*HEAD_NAMES, "score")
    )
    model = AutoModelForSequenceClassification.from_pretrained(
        source, config=named, quantization_config=held, device_map={"": "cpu"}
    )
    # with AVX512-BF16 bitsandbytes would repack the weights, which layers as narrow as these fail
    keep_differentiable(model)
    model = PeftModel.from_pretrained(model, saved)
    torch.testing.assert_close(stock_logits(model, saved), ours, atol=1e-4, rtol=0)


def test_a_16_bit_base_starts_at_the_loss_in_closed_form(source: Path, tmp_path: Path) -> None:
    for tuning in ("lora", "full"):
        config = asked(source, tuning=tuning, base={"dtype": "bfloat16"}, optim={"max_steps": 2})
        run = trained(tmp_path / tuning, config)
        assert curve(run)[1]["loss/train"] == pytest.approx(math.log(3), abs=1e-5)


def test_a_classifier_is_no_reward_model(llama: Path, tmp_path: Path) -> None:
    saved, _ = untrained(tmp_path / "run", asked(llama))
    with pytest.raises(BaseModelError, match="no reward model"):
        load_score_head(saved, 32)
    with pytest.raises(BaseModelError, match="merge_and_unload"):
        merge(base=str(llama), adapter=saved, out=tmp_path / "out")


@pytest.mark.parametrize("kind", [{"use_dora": True}, {"use_rslora": True}])
def test_other_kinds_of_adapters_are_saved_whole(
    kind: dict[str, bool], source: Path, tmp_path: Path
) -> None:
    saved, ours = untrained(tmp_path / "run", asked(source, adapter=kind))
    model = AutoModelForSequenceClassification.from_pretrained(
        source, config=AutoConfig.from_pretrained(saved)
    )
    model = PeftModel.from_pretrained(model, saved)
    torch.testing.assert_close(stock_logits(model, saved), ours, atol=1e-4, rtol=0)


def test_recomputed_activations_change_nothing(source: Path, tmp_path: Path) -> None:
    for tuning in ("lora", "full"):
        curves = []
        for again in (False, True):
            more = {"gradient_checkpointing": again, "optim": {"max_steps": 3}}
            run = trained(tmp_path / f"{tuning}-{again}", asked(source, tuning=tuning, **more))
            curves.append(curve(run))
        for step, values in curves[0].items():
            assert curves[1][step] == pytest.approx(values, abs=1e-5)


def test_an_adapters_dropout_is_drawn_in_training_alone(source: Path, tmp_path: Path) -> None:
    runs = {
        share: trained(tmp_path / f"{share}", asked(source, adapter={"dropout": share}))
        for share in (0.0, 0.5)
    }
    # the second step's update has passed through what was dropped
    assert curve(runs[0.0])[6] != pytest.approx(curve(runs[0.5])[6])
    saved = stock(runs[0.5], source)
    tokenizer = AutoTokenizer.from_pretrained(runs[0.5] / "adapter")
    batch = tokenizer([row["text"] for row in TEST], padding=True, return_tensors="pt")
    targets = torch.tensor([saved.config.label2id[row["label"]] for row in TEST])
    with torch.no_grad():
        loss = saved(**batch, labels=targets).loss.item()
    assert loss == pytest.approx(result(runs[0.5])["metrics"]["classify/log_loss"], abs=1e-4)


# The loss ---------------------------------------------------------------------------------------


def test_a_run_is_the_loop_that_one_would_write_with_transformers(
    bert: Path, tmp_path: Path
) -> None:
    """Full fine-tuning on all rows at once: the stock model's own loss, AdamW, clipped at 1."""
    rows, source = TRAIN[:24], tmp_path / "pooled"
    tokenizer = AutoTokenizer.from_pretrained(bert)
    tokenizer.save_pretrained(source)
    torch.manual_seed(0)  # the tests' base comes without a pooler
    AutoModelForSequenceClassification.from_pretrained(bert, num_labels=3).save_pretrained(source)
    config = asked(source, tuning="full", row_budget=4096)
    config["optim"] = {"lr": 5e-3, "batch_size": 24, "epochs": 8,
                       "schedule": "constant", "warmup_ratio": 0.0}  # fmt: skip
    run = trained(tmp_path / "run", config, train=rows)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=3).eval()
    nn.init.zeros_(model.classifier.weight)
    nn.init.zeros_(model.classifier.bias)
    labels = sorted(CUES)

    def loss_on(some: list[dict[str, Any]]) -> torch.Tensor:
        batch = tokenizer([row["text"] for row in some], padding=True, return_tensors="pt")
        targets = torch.tensor([labels.index(row["label"]) for row in some])
        found: torch.Tensor = model(**batch, labels=targets).loss
        return found

    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = loss_on(rows)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    ours = [values["loss/train"] for values in curve(run).values() if "loss/train" in values]
    assert ours == pytest.approx(losses, abs=1e-4)
    assert losses[-1] < losses[0] - 0.05
    with torch.no_grad():
        held_out = loss_on(TEST).item()
    assert result(run)["metrics"]["classify/log_loss"] == pytest.approx(held_out, abs=1e-4)


def test_label_smoothing_is_that_of_transformers() -> None:
    logits, targets = torch.randn(6, 4), torch.tensor([0, 3, 2, 2, 1, 0])
    ours = row_losses(logits, targets, 0.1).mean()
    theirs = LabelSmoother(epsilon=0.1)({"logits": logits}, targets)
    torch.testing.assert_close(ours, theirs)


def test_balanced_weights_make_every_class_count_alike(source: Path, tmp_path: Path) -> None:
    # 6, 3 and 1 rows of 10: 10 / (3 · rows of the class), whose mean over the rows is 1
    rows = [
        Labelled(str(n), (1,), target, str(n)) for n, target in enumerate([0] * 6 + [1] * 3 + [2])
    ]
    weights = row_weights(rows, "balanced")
    assert weights == pytest.approx([10 / 18] * 6 + [10 / 9] * 3 + [10 / 3])
    assert weights == pytest.approx(
        compute_sample_weight("balanced", [row.target for row in rows]).tolist()
    )
    assert row_weights(rows, "none") == [1.0] * 10
    # a text that says nothing gets the shares of its labels, or with weights those of the classes
    blind = [{**ROW, "id": f"{n}", "label": "law" if n % 4 else "food"} for n in range(24)]
    for kind, wanted in (("none", 0.75), ("balanced", 0.5)):
        config = asked(source, classify={"class_weights": kind})
        config["optim"] |= {"batch_size": 24, "epochs": 60, "schedule": "constant"}
        run = trained(tmp_path / kind, config, train=blind, test=blind[:4])
        bins = result(run)["classification"]["calibration"]["bins"]
        (sure,) = [each["confidence"] for each in bins if each["rows"]]
        assert sure == pytest.approx(wanted, abs=0.02)


def test_a_row_of_weight_2_counts_as_two_rows(source: Path, tmp_path: Path) -> None:
    """Weights 2 and 1 in one batch: (4/3·a + 2/3·b) / 2 = (2a + b) / 3, the mean with a copy."""
    weighted = [{**row, "weight": 1.0 + (n % 3 == 0)} for n, row in enumerate(TRAIN[:12])]
    copied = [
        {**row, "id": f"{n}-{copy}"}
        for n, row in enumerate(TRAIN[:12])
        for copy in range(1 + (n % 3 == 0))
    ]
    runs = []
    for kind, rows in (("weighted", weighted), ("copied", copied), ("plain", TRAIN[:12])):
        config = asked(source)
        config["optim"] |= {"batch_size": len(rows), "epochs": 4, "lr": 1e-3}
        runs.append(result(trained(tmp_path / kind, config, train=rows))["metrics"])
    losses = [run["classify/log_loss"] for run in runs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert runs[0]["loss/train"] == pytest.approx(runs[1]["loss/train"], abs=1e-5)
    assert abs(losses[0] - losses[2]) > 1e-4
    # a class's weight is shared among its rows by theirs: 3 and 1 against 2, all of one mean
    rows = [
        Labelled(str(n), (1,), target, str(n), weight)
        for n, (target, weight) in enumerate([(0, 3.0), (0, 1.0), (1, 2.0)])
    ]
    assert row_weights(rows, "balanced") == pytest.approx([3 * 3 / 8, 3 / 8, 3 / 2])


@torch.no_grad()
def test_padding_and_neighbours_change_nothing(source: Path, tmp_path: Path) -> None:
    run = RunDir(make_run(tmp_path / "run", asked(source), train=TRAIN))
    model = load(run, sorted(CUES))
    for parameter in model.parameters.values():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    rows = encode_labelled(model.base, TEST, sorted(CUES), 40, run.events, "test")
    tokens = [row.tokens for row in rows]
    with model.base.use(model.trained.adapter):
        together = model.logits_of(tokens)
        alone = torch.cat([model.logits_of([each]) for each in tokens])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
