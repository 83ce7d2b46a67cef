"""Sequence classification: cross-entropy on a text's label, through a linear head.

Differs from Devlin et al. 2018 (arXiv 1810.04805, section 4.1: softmax over W·C, C the state of
[CLS], all weights trained with dropout): the last layer of the head starts at zero, so that the
first loss is known in closed form (ln K) and can be checked; dropout of the base is off; LoRA and
4-bit bases as everywhere here (docs/methods/classify.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

from training.engine.classifiers import Classifier, DecoderClassifier
from training.engine.classify_data import (
    Labelled,
    encode_labelled,
    in_short,
    labels_of,
    row_weights,
)
from training.engine.classify_metrics import Answers, figures
from training.engine.data import within_positions
from training.engine.distributed import add_up
from training.engine.encoders import EncoderClassifier, load_encoder
from training.engine.errors import BaseModelError
from training.engine.planner_shapes import ENCODERS
from training.engine.preflight import announce, expect_step_zero, seed_everything
from training.engine.rundir import RunDir
from training.engine.sources import locate, not_loaded, refuse_wordless
from training.engine.steps import Steps, batches
from training.engine.tuning import load_trainable


def row_losses(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each row in nats: −(1 − ε)·log p(target) − ε/K · Σ log p.

    Label smoothing: Szegedy et al. 2016 (arXiv 1512.00567, section 7). logits: (n, K).
    targets: (n,). Returns: (n,)
    """
    losses: Tensor = functional.cross_entropy(
        logits.float(), targets, reduction="none", label_smoothing=label_smoothing
    )
    return losses


def load(run: RunDir, labels: Sequence[str]) -> Classifier:
    """The base with a head for these labels.

    Raises BaseModelError for a base that is neither an encoder that is known here nor a decoder.
    """
    config = run.base
    try:
        shape = AutoConfig.from_pretrained(
            locate(config.source), revision=config.revision, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise not_loaded(config.source, error) from error
    kind = shape.model_type
    if kind in ENCODERS:
        return EncoderClassifier(run, load_encoder(config, run.config, labels), labels)
    refuse_wordless(locate(config.source))
    made_as = shape.architectures or ["ForCausalLM"]
    # encoders other than those above may be loaded as causal models too, and would be misread
    writes = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in made_as)
    if type(shape) not in MODEL_FOR_CAUSAL_LM_MAPPING or not writes:
        raise BaseModelError(
            f"the base {config.source!r} is a {kind}; classify reads encoders "
            f"({', '.join(ENCODERS)}) and decoders that write text (llama and its like)"
        )
    return DecoderClassifier(run, load_trainable(run), labels)


def train(run: RunDir) -> dict[str, Any]:
    """Train on data.train, measure on data.test, save. Returns the result."""
    config = run.config
    classify = config.classify
    assert classify is not None  # noqa: S101 - the config guarantees it
    seed_everything(config)
    train_rows, held_out_rows = run.rows(config.data.train), run.held_out_rows()
    labels = labels_of(train_rows, held_out_rows, classify)
    run.events.write("phase", name="load")
    model = load(run, labels)
    base = model.base
    longest = within_positions(base, config.data, run.events).max_length
    rows = encode_labelled(base, train_rows, labels, longest, run.events, "train")
    held_out = encode_labelled(base, held_out_rows, labels, longest, run.events, "test")
    weights = torch.tensor(row_weights(rows, classify.class_weights))
    silent = sorted(set(range(len(labels))) - {row.target for row in rows})
    if silent:
        run.events.warning(
            "classes_without_rows",
            f"no training row is of {in_short([labels[number] for number in silent])}: they keep "
            "their logits and are not learnt",
        )

    plan = batches(len(rows), config.optim.batch_size, config.optim.epochs, config.seed)
    plan = plan[: config.optim.max_steps]
    steps = Steps(run, model.parameters, config.optim, total=len(plan))
    trainable = sum(parameter.numel() for parameter in model.parameters.values())
    announce(run, base, total_steps=len(plan), rows=len(rows), trainable=trainable)

    loss_of_step = 0.0
    with base.use(model.trained.adapter):
        model.prepare(run, [row.tokens for row in rows])
        checkpoint = steps.resume()
        if checkpoint is not None:
            loss_of_step = float(checkpoint.state["loss"])
        run.events.write("phase", name="train")
        for batch in plan[steps.step :]:
            chosen = [rows[index] for index in batch]
            targets = torch.tensor([row.target for row in chosen])
            shares = weights[batch]
            losses, right = torch.zeros(len(batch)), torch.zeros(len(batch))
            # 1. logits of a few rows at a time
            for indices, logits in model.passes([row.tokens for row in chosen]):
                steps.raise_if_stopped()
                wanted = targets[indices].to(logits.device)
                own = row_losses(logits, wanted, classify.label_smoothing)
                # 2. the weighted loss, normalised by the whole batch: weights have mean 1 over all
                # rows, so a batch of trusted rows or rare classes moves more than another
                loss = (shares[indices].to(own.device) * own).sum() / len(batch)
                steps.check_finite(loss)
                loss.backward()
                losses[indices] = own.detach().cpu()
                right[indices] = (logits.argmax(dim=-1) == wanted).float().cpu()
            add_up(losses, right)
            if steps.step == 0:
                expect_step_zero(
                    config,
                    loss=losses.mean().item(),
                    expected=math.log(len(labels)),
                    margin=0.0,
                    what="the classifier",
                )
            # 3. update
            taken = steps.take()
            # 4. log, save
            loss_of_step = ((shares * losses).sum() / shares.sum()).item()
            measured = {"loss/train": loss_of_step, "classify/accuracy": right.mean().item()}
            run.events.metrics(steps.step, measured | taken)
            steps.progress()
            if steps.reached({"loss": loss_of_step}):
                break

        metrics = {"loss/train": loss_of_step}
        found: dict[str, Any] = {}
        if held_out:
            run.events.write("phase", name="evaluate")
            with steps.weights_at_rest():
                measured, found["classification"] = measure(model, rows, held_out)
            metrics |= measured
    run.events.write("phase", name="save")
    return {
        "steps": steps.step,
        "rows": len({i for batch in plan[: steps.step] for i in batch}),
        "metrics": metrics,
        **found,
        **model.save(run),
    }


def measure(
    model: Classifier, rows: Sequence[Labelled], held_out: Sequence[Labelled]
) -> tuple[dict[str, float], dict[str, Any]]:
    """(metrics of the held-out rows, what else the result says of them)."""
    logits = model.logits_of([row.tokens for row in held_out])
    answers = Answers(
        logits=logits.double().numpy(),
        targets=np.array([row.target for row in held_out]),
        texts=[row.text for row in held_out],
        labels=model.labels,
    )
    frequent = np.bincount([row.target for row in rows], minlength=len(model.labels))
    return figures(answers, majority=int(frequent.argmax()))
