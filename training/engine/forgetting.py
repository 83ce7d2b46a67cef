"""The forgetting gate: general text and general questions under the reference and the policy.

Perplexity is docs/methods/pretrain.md's, with the reference in the place of the base. Its gate
judges the change itself, not an end of its interval: few documents must not let it pass. That of
the questions (`probes`) also asks for its interval: a question is right or wrong, and so a single
one that flips is a large change of which nothing follows.
"""

from __future__ import annotations

from typing import Any

from training.engine.batching import Packing
from training.engine.classifiers import at_rest
from training.engine.dpo import ADAPTER
from training.engine.intervals import with_ends
from training.engine.models import Base
from training.engine.pretrain_data import encode_documents, general_rows
from training.engine.pretrain_metrics import document_nats, figures
from training.engine.probe_figures import probe_figures, what_fell
from training.engine.probes import encode_probes, known_probes, right_answers
from training.engine.rundir import RunDir

NAMES = {"before": "perplexity_before", "after": "perplexity_after", "change": "change"}
PROBES = {
    "before": "probe/accuracy_before",
    "after": "probe/accuracy_after",
    "change": "probe/change",
}
REMEDY = (
    "Train with a smaller learning rate or fewer steps, or mix general rows in "
    "(docs/explanations/forgetting.md)"
)


def forgetting(
    run: RunDir, base: Base, reference: str | None, packing: Packing
) -> tuple[dict[str, float], Any]:
    """(metrics, `forgetting` of the result); an event warns where a gate is failed.

    reference: the adapter that the policy is compared with; None for the bare base. packing: of
    questions; documents stand alone.
    """
    settings = run.config.evaluate
    assert settings is not None  # noqa: S101 - the config guarantees it
    source, rows = general_rows(run.path)
    longest = run.config.data.max_length
    if base.positions is not None:
        longest = min(longest, base.positions)
    documents = encode_documents(base, rows, longest, run.events, "general", ended=False)
    probed, probes = known_probes(run.path)
    probes, trees = encode_probes(base, probes, run.events)
    alone = Packing(run.config.row_budget, shared=False)
    with at_rest(base.model):
        with base.use(reference):
            before = document_nats(base, documents, alone)
            right_before = right_answers(base, probes, trees, packing)
        with base.use(ADAPTER):
            after = document_nats(base, documents, alone)
            right_after = right_answers(base, probes, trees, packing)
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
            f"evaluate.gate allows {gate:.1%}. {REMEDY}",
        )
    kinds = [probe.kind for probe in probes]
    asked = probe_figures(kinds, right_before, right_after, settings.probe_gate)
    if asked["passed"] is False:
        run.events.warning(
            "probe_gate", f"failed the forgetting gate: {what_fell(asked)}. {REMEDY}"
        )
    for name, metric in PROBES.items():
        metrics |= with_ends(metric, [asked[name][end] for end in ("value", "low", "high")])
    found |= {"source": source, "became": became, "gate": gate, "passed": passed}
    return metrics, {**found, "probes": {**asked, "source": probed}}
