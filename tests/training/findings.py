"""Finished runs with results as the engine writes them, for the pages that show them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.conf import settings

from rlhf_platform.accounts.models import Workspace
from tests.training.rows import make_version
from training.models import Job, ModelVersion, Run, TextSet


def finished(workspace: Workspace, method: str, result: dict[str, Any], **fields: Any) -> Run:
    """A run outside a round that ended well."""
    base = ModelVersion.objects.filter(workspace=workspace, kind="base").first()
    run = Run.objects.create(
        workspace=workspace, method=method, config={"method": method},
        folder=f"runs/{method}-{uuid4().hex[:8]}", version=base or make_version(workspace),
        result={"metrics": {}, "steps": 3, "seconds": 4.0, "peak_mb": 500.0, **result}, **fields,
    )  # fmt: skip
    Job.objects.create(
        workspace=workspace, kind=Job.Kind.RUN, queue=Job.Queue.TRAINING, run=run,
        state="succeeded", attempts=1,
    )  # fmt: skip
    return run


def spread(name: str, value: float | None, by: float = 0.1) -> dict[str, float | None]:
    ends = (None, None) if value is None else (value - by, value + by)
    return {name: value, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def classifier(workspace: Workspace, labels: list[str], matrix: list[list[int]]) -> Run:
    """A classification whose matrix (lines: right, columns: said) is given."""
    said = [sum(line[k] for line in matrix) for k in range(len(labels))]
    classes = [
        {
            "label": label, "support": sum(matrix[k]), "predicted": said[k],
            **spread("precision", matrix[k][k] / said[k] if said[k] else None),
            **spread("recall", matrix[k][k] / sum(matrix[k])),
            **spread("f1", 0.5),
        }
        for k, label in enumerate(labels)
    ]  # fmt: skip
    rows = sum(map(sum, matrix))
    bins = [{"above": 0.8, "to": 0.9, "rows": rows, "confidence": 0.85, "accuracy": 0.7},
            {"above": 0.9, "to": 1.0, "rows": 0, "confidence": None, "accuracy": None}]  # fmt: skip
    found = {
        "labels": labels, "rows": rows, "texts": rows, "confusion": matrix, "per_class": classes,
        "majority": {"label": labels[0], **spread("accuracy", 0.6)},
        "calibration": {"ece": 0.15, "bins": bins},
    }  # fmt: skip
    metrics = {**spread("classify/accuracy", 0.75), **spread("classify/macro_f1", 0.7),
               **spread("classify/log_loss", 0.5), "classify/ece": 0.15}  # fmt: skip
    return finished(workspace, "classify", {"classification": found, "metrics": metrics})


def pretrained(workspace: Workspace) -> Run:
    metrics: dict[str, Any] = {}
    for side, before, after in (("domain", 18.3, 13.8), ("general", 30.9, 33.0)):
        metrics |= spread(f"pretrain/{side}_perplexity_before", before, 2.0)
        metrics |= spread(f"pretrain/{side}_perplexity_after", after, 2.0)
        metrics |= spread(f"pretrain/{side}_change", after / before - 1.0, 0.05)
    sides = {
        "domain": {"documents": 8, "tokens": 1831, "bytes": 9000, "perplexity": "fell"},
        "general": {"documents": 11, "tokens": 1429, "bytes": 7000, "perplexity": "rose"},
    }
    return finished(workspace, "pretrain", {"metrics": metrics, "pretraining": sides})


def answering(
    workspace: Workspace, questions: TextSet, documents: TextSet | None, rows: list[dict[str, Any]]
) -> Run:
    """An answering run with its answers in its folder."""
    metrics = {**spread("answer/f1", 0.4), **spread("answer/exact", 0.2),
               **spread("answer/recall", 0.9), "answer/latency_median_s": 1.5,
               "answer/latency_p95_s": 2.5}  # fmt: skip
    about = {
        "questions": len(rows), "without_gold": 1, "block": 8, "prompt_tokens": 1234,
        "answer_tokens": 56, "retrieval": {"questions_with_documents": 2, "citations": 3,
                                           "answers_that_cite": 2, "citations_of_nothing": 1},
    }  # fmt: skip
    result = {"metrics": metrics, "answer": about, "answers": "attempts/a/answers.jsonl"}
    run = finished(workspace, "answer", result, text_set=questions, documents=documents)
    file = Path(settings.RUNS_DIR) / run.folder / "attempts/a/answers.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def comparison(workspace: Workspace, **reasons: str) -> Run:
    """A comparison of all four approaches; those with a reason failed."""

    def figure(value: float, by: float = 0.1) -> dict[str, float]:
        return {"value": value, "low": value - by, "high": value + by}

    def row(name: str, title: str, by: float, trained: bool) -> dict[str, Any]:
        if name in reasons:
            nothing: dict[str, Any] = dict.fromkeys(
                ("quality", "difference", "retrieval", "cost", "memory", "latency", "forgetting",
                 "stages")
            )  # fmt: skip
            return nothing | {
                "approach": name, "title": title, "status": "failed", "reason": reasons[name],
            }  # fmt: skip
        stage = {"stage": f"{name}-answer", "folder": "x", "wall_s": 9.0, "cpu_s": 8.0,
                 "peak_mb": 1178.0, "steps": None, "attempts": 1, "cut_off": 0}  # fmt: skip
        return {
            "approach": name, "title": title, "status": "done", "reason": None,
            "quality": {"answer/f1": figure(0.3 + by), "answer/exact": figure(0.1)},
            "retrieval": {"answer/recall": figure(0.9)} if name == "rag" else None,
            "difference": None if name == "prompting" else figure(by, 0.02),
            "cost": {"wall_s": 9.0, "cpu_s": 114.0, "cpu_s_before_answering": 4.0,
                     "cpu_s_answering": 100.0, "cpu_s_measuring_general": 10.0,
                     "prompt_tokens": 3016, "answer_tokens": 298},
            "memory": {"peak_mb": 1178.0, "peak_mb_answering": 1064.0},
            "latency": {"median_s": 4.0, "p95_s": 5.0, "questions_at_once": 8},
            "forgetting": {"perplexity_before": figure(30.9), "perplexity_after": figure(33.0),
                           "change": figure(0.07, 0.01)} if trained else None,
            "stages": [stage],
        }  # fmt: skip

    found = {
        "task": "quiz v1", "kind": "text", "questions": 24, "questions_among_the_examples": 2,
        "examples": 48, "primary": "answer/f1", "baseline": "prompting",
        "rows": [
            row("prompting", "Prompting", 0.0, False), row("rag", "RAG", 0.06, False),
            row("sft", "SFT (LoRA)", -0.05, True),
            row("pretrain_sft", "Continued pretraining + SFT", 0.01, True),
        ],
    }  # fmt: skip
    return finished(workspace, "compare", {"comparison": found})
