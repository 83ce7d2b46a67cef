"""The forgetting gate: perplexity of general text under the reference and under the policy.

What is measured is docs/methods/pretrain.md's, with the reference in the place of the base. The
gate judges the change itself, not an end of its interval: few documents must not let it pass.
"""

from __future__ import annotations

from typing import Any

from training.engine.batching import Packing
from training.engine.classifiers import at_rest
from training.engine.dpo import ADAPTER
from training.engine.models import Base
from training.engine.pretrain_data import encode_documents, general_rows
from training.engine.pretrain_metrics import document_nats, figures
from training.engine.rundir import RunDir

NAMES = {"before": "perplexity_before", "after": "perplexity_after", "change": "change"}


def forgetting(run: RunDir, base: Base, reference: str | None) -> tuple[dict[str, float], Any]:
    """(metrics, `forgetting` of the result); an event warns where the gate is failed.

    reference: the adapter that the policy is compared with; None for the bare base.
    """
    settings = run.config.evaluate
    assert settings is not None  # noqa: S101 - the config guarantees it
    source, rows = general_rows(run.path)
    longest = run.config.data.max_length
    if base.positions is not None:
        longest = min(longest, base.positions)
    documents = encode_documents(base, rows, longest, run.events, "general", ended=False)
    packing = Packing(run.config.row_budget, shared=False)
    with at_rest(base.model):
        with base.use(reference):
            before = document_nats(base, documents, packing)
        with base.use(ADAPTER):
            after = document_nats(base, documents, packing)
    metrics, became = figures("general", documents, before, after)
    found: dict[str, Any] = {
        name: {
            "value": metrics[f"pretrain/general_{metric}"],
            "low": metrics.get(f"pretrain/general_{metric}_low"),
            "high": metrics.get(f"pretrain/general_{metric}_high"),
            "n": len(documents),
        }
        for name, metric in NAMES.items()
    }
    change, gate = found["change"]["value"], settings.gate
    passed = None if gate is None else change <= gate
    if passed is False:
        run.events.warning(
            "forgetting_gate",
            f"failed the forgetting gate: perplexity of general text rose by {change:.1%}, and "
            f"evaluate.gate allows {gate:.1%}. Train with a smaller learning rate or fewer steps, "
            "or mix general rows in (docs/explanations/forgetting.md)",
        )
    return metrics, {**found, "source": source, "became": became, "gate": gate, "passed": passed}
