"""Continued pretraining on raw text: cross-entropy on every token, documents packed side by side.

The loss is the mean over all scored tokens of a batch of windows, document ends included
(Gururangan et al. 2020, arXiv 2004.10964, call it domain-adaptive pretraining). Differs from the
usual corpus of one long stream: a token never sees another document, positions restart with each
window, and general text is measured beside the domain's, before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.engine.batching import Packing
from training.engine.classifiers import at_rest
from training.engine.data import within_positions
from training.engine.dpo import ADAPTER
from training.engine.models import Base
from training.engine.preflight import announce, choose_packing, seed_everything
from training.engine.pretrain_data import (
    Document,
    encode_documents,
    general_rows,
    training_windows,
)
from training.engine.pretrain_metrics import document_nats, figures
from training.engine.rundir import RunDir
from training.engine.sft import fit
from training.engine.steps import Steps, batches
from training.engine.tuning import begin, load_trainable

Sides = Mapping[str, list[Document]]


def train(run: RunDir) -> dict[str, Any]:
    """Train on data.train, measure domain and general text before and after, save."""
    config = run.config
    seed_everything(config)
    rows = run.rows(config.data.train)
    run.events.write("phase", name="load")
    base = load_trainable(run)
    longest = within_positions(base, config.data, run.events).max_length
    windows, owners = training_windows(base, run.path, rows, config, longest, run.events)
    sides, general = measured_sides(run, base, longest)

    trained = begin(base, config, ADAPTER)
    plan = batches(len(windows), config.optim.batch_size, config.optim.epochs, config.seed)
    plan = plan[: config.optim.max_steps]
    steps = Steps(run, trained.parameters, config.optim, total=len(plan))
    trainable = sum(parameter.numel() for parameter in trained.parameters.values())
    announce(run, base, total_steps=len(plan), rows=len(windows), trainable=trainable)
    packing = choose_packing(run, base, windows)

    with base.use(trained.adapter):
        checkpoint = steps.resume()
        if checkpoint is not None:
            before = checkpoint.state["before"]
        else:
            run.events.write("phase", name="measure")
            with steps.weights_at_rest():
                before = nats_of(base, sides, packing)
        run.events.write("phase", name="train")
        loss = fit(run, base, steps, windows, plan, packing, checkpoint, {"before": before})
        run.events.write("phase", name="evaluate")
        with steps.weights_at_rest():
            after = nats_of(base, sides, packing)
    metrics = {"loss/train": loss}
    found: dict[str, Any] = {}
    for side, documents in sides.items():
        of_side, became = figures(side, documents, before[side], after[side])
        metrics |= of_side
        found[side] = {
            "documents": len(documents),
            "tokens": sum(document.n_scored for document in documents),
            "bytes": sum(document.n_bytes for document in documents),
            "perplexity": became,
        }
    found["general"]["source"] = general
    run.events.write("phase", name="save")
    seen = {owners[i] for batch in plan[: steps.step] for i in batch}
    return {
        "steps": steps.step,
        "rows": len(seen - {-1}),
        "metrics": metrics,
        "pretraining": found,
        **trained.save(run),
    }


def measured_sides(run: RunDir, base: Base, longest: int) -> tuple[dict[str, list[Document]], str]:
    """(documents that are measured: domain where there are held-out ones, and general; the
    source of the general ones)."""
    sides = {}
    held_out = run.held_out_rows()
    if held_out:
        sides["domain"] = encode_documents(base, held_out, longest, run.events, "test", ended=False)
    else:
        run.events.warning(
            "nothing_held_out",
            f"{run.config.data.test} holds no documents: what was learnt of the domain is not "
            "measured",
        )
    source, rows = general_rows(run.path)
    sides["general"] = encode_documents(base, rows, longest, run.events, "general", ended=False)
    return sides, source


def nats_of(base: Base, sides: Sides, packing: Packing) -> dict[str, list[float]]:
    """Nats of every document of each side, without an adapter's dropout."""
    with at_rest(base.model):
        return {side: document_nats(base, each, packing) for side, each in sides.items()}
