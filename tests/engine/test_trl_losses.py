"""Our losses on stock TRL's own batches equal TRL's."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from tests.engine.tiny import preference_row
from training.engine.batching import Packing, pack
from training.engine.config import RewardConfig as OurRewardConfig
from training.engine.data import Branch, Label, Tree
from training.engine.losses import dpo_losses
from training.engine.models import Base
from training.engine.reward import losses_of, tree_values
from training.engine.scores import ScoreHead
from training.engine.sft import row_loss

ROWS = [
    preference_row(n, good="yes indeed " * (n + 1), bad="no never, not at all " * (4 - n))
    for n in range(4)
]


def perturbed(tiny: Path) -> Any:
    """The tiny model a little away from its reference, so that no log-ratio is 0."""
    model = AutoModelForCausalLM.from_pretrained(tiny)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def summed(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Log-probs of a batch's completions. Returns: (2, B), chosen and rejected"""
    with torch.no_grad():
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    targets, mask = batch["input_ids"][:, 1:], batch["completion_mask"][:, 1:]
    logps = logits[:, :-1].log_softmax(-1).gather(2, targets[..., None]).squeeze(2)
    return (logps * mask).sum(1).view(2, -1)


@pytest.mark.parametrize(
    ("loss", "smoothing"),
    [("sigmoid", 0.0), ("sigmoid_norm", 0.0), ("robust", 0.2), ("ipo", 0.0), ("sft", 0.0)],
)
def test_a_batch_costs_what_it_costs_in_trl(
    loss: str, smoothing: float, tiny: Path, tmp_path: Path
) -> None:
    model, reference = perturbed(tiny), AutoModelForCausalLM.from_pretrained(tiny)
    trainer = DPOTrainer(
        model=model,
        ref_model=reference,
        args=DPOConfig(
            output_dir=str(tmp_path), loss_type=[loss], beta=0.3, label_smoothing=smoothing,
            per_device_train_batch_size=4, report_to=[], use_cpu=True, disable_dropout=True,
        ),
        train_dataset=Dataset.from_list(
            [{k: row[k] for k in ("prompt", "chosen", "rejected")} for row in ROWS]
        ),
        processing_class=AutoTokenizer.from_pretrained(tiny),
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    theirs = float(trainer.compute_loss(trainer.model, dict(batch)))
    logps, refs = summed(trainer.model, batch).t(), summed(reference, batch).t()
    lengths = batch["completion_mask"].sum(1).view(2, -1).t()
    if loss == "sft":  # what dpo.nll_weight adds
        ours = float(-logps[:, 0].sum() / lengths[:, 0].sum())
    else:
        losses, _ = dpo_losses(
            logps, refs, lengths, torch.ones(4), beta=0.3, loss=loss, label_smoothing=smoothing
        )
        ours = float(losses.mean())
    assert ours == pytest.approx(theirs, abs=1e-5, rel=1e-5)


def common(one: list[int], two: list[int]) -> int:
    """Length of the common beginning."""
    pairs = zip(one, two, strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


@pytest.mark.parametrize("margins", [None, [0.5, 0.0, 1.0, 2.0]])
def test_a_batch_costs_a_reward_model_what_it_costs_in_trl(
    margins: list[float] | None, base: Base, tiny: Path, tmp_path: Path
) -> None:
    # TRL pools at the last token that is not padding, so its pad must not be the end of a turn
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(base.distinct_pad_id())
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1)
    with torch.no_grad():
        model.score.weight.mul_(20.0)  # away from ln 2
    rows = [{k: row[k] for k in ("prompt", "chosen", "rejected")} for row in ROWS]
    if margins is not None:
        rows = [row | {"margin": margin} for row, margin in zip(rows, margins, strict=True)]
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=4, report_to=[], use_cpu=True,
            disable_dropout=True, center_rewards_coefficient=0.01, pad_token=tokenizer.pad_token,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        theirs = float(trainer.compute_loss(trainer.model, dict(batch)))
    texts = [
        ids[mask.bool()].tolist()
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    trees = []
    for chosen, rejected in zip(texts[:4], texts[4:], strict=True):
        shared = common(chosen, rejected)
        parts = (Branch(tuple(chosen[shared:])), Branch(tuple(rejected[shared:])))
        trees.append(Tree(tuple(chosen[:shared]), parts))
    head = ScoreHead(base.hidden_size)
    with torch.no_grad():
        head.weight.copy_(trainer.model.score.weight)
    scores = tree_values(base, head.each, trees, Packing(2048, shared=True))
    settings = OurRewardConfig(centring=0.01, margin=margins is not None)
    given = batch["margin"].tolist() if margins is not None else [0.0] * 4
    losses, _ = losses_of([Label(margin=margin) for margin in given], scores, None, settings)
    assert abs(losses.mean().item() - 0.693147) > 0.01
    assert losses.mean().item() == pytest.approx(theirs, abs=1e-5, rel=1e-5)


def test_a_batch_of_conversations_costs_what_it_costs_in_trl(
    base: Base, tiny: Path, tmp_path: Path
) -> None:
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny),
        args=SFTConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=4, report_to=[], use_cpu=True
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": row["prompt"], "completion": row["chosen"]} for row in ROWS]
        ),
        processing_class=AutoTokenizer.from_pretrained(tiny),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        theirs = float(trainer.compute_loss(trainer.model, dict(batch)))
    trees = []
    for ids, labels, mask in zip(
        batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
    ):
        tokens, scored = ids[mask.bool()].tolist(), (labels[mask.bool()] != -100).tolist()
        start = scored.index(True)
        whole = Branch(tuple(tokens[start:]), tuple(scored[start:]))
        trees.append(Tree(tuple(tokens[:start]), (whole,)))
    rows = [row for group in pack(trees, Packing(2048, shared=True)) for row in group]
    n_tokens = sum(len(row.targets) for row in rows)
    assert len(rows) == 1, "four conversations side by side in one row"
    with torch.no_grad():
        ours = sum(row_loss(base, row, n_tokens).item() for row in rows)
    assert ours == pytest.approx(theirs, abs=1e-5, rel=1e-5)
