"""Our preference losses on stock TRL's own batches equal TRL's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from tests.engine.tiny import preference_row
from training.engine.losses import dpo_losses

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
