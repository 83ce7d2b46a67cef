"""Prompting, RAG, SFT, and continued pretraining before SFT, on one task and the same questions.

Every approach ends in the method `answer`, which measures all of them alike; differences to
prompting are paired by question. An approach that fails is a row with its reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.engine.answer_metrics import PRIMARY
from training.engine.answered import lines, whole_rows
from training.engine.compare_report import html
from training.engine.compare_stages import Done, Stages
from training.engine.compare_task import Task, read_task
from training.engine.config_compare import APPROACHES
from training.engine.errors import DataError, EngineError, OutOfSpaceError
from training.engine.files import write_file
from training.engine.intervals import clustered_interval
from training.engine.rundir import Row

BASELINE = "prompting"
#: Metrics of an answer run that a table shows, by task; the first is the one that is compared.
SHOWN = {
    "text": ("answer/f1", "answer/exact"),
    "json": ("answer/field_f1", "answer/exact", "answer/parsed"),
    "labels": ("classify/accuracy", "classify/macro_f1"),
}
FOUND = ("answer/recall", "answer/mrr", "answer/cited_precision")
FORGOTTEN = ("perplexity_before", "perplexity_after", "change")
Say = Callable[[str], None]


def run_comparison(
    task: Mapping[str, Any],
    out: Path,
    *,
    folder: Path | None = None,
    say: Say | None = None,
    begun: Say | None = None,
) -> dict[str, Any]:
    """Run every approach of a task; writes compare.json and compare.html into `out`.

    task: as docs/methods/compare.md says; its paths are relative to `folder` (by default to where
    this process stands). say: told what approach is begun; begun: told of each stage. Returns what
    compare.json holds.
    Raises EngineError where the task itself is wrong, Interrupted after a signal.
    """
    read = read_task(task, folder)
    stages = Stages(out, begun)
    tell = say or (lambda _: None)
    rows: list[Row] = []
    answers: dict[str, list[Row]] = {}
    for name in read.approaches:
        tell(f"{APPROACHES[name]} …")
        try:
            done = RUN[name](read, stages)
        except OutOfSpaceError:
            raise  # the next approach would find no room either, and this one can go on
        except EngineError as error:
            rows.append(failed(name, f"{error}"))
            tell(f"{APPROACHES[name]}: {error}")
            continue
        answers[name] = whole_rows(done[-1].path_of("answers"))
        rows.append(row_of(name, read.kind, done, stages))
    for row in rows:
        if row["status"] == "done" and row["approach"] != BASELINE and BASELINE in answers:
            row["difference"] = difference(read, answers[row["approach"]], answers[BASELINE])
    found = {
        "task": read.name,
        "kind": read.kind,
        "questions": len(read.questions),
        "questions_among_the_examples": read.seen_before(),
        "examples": len(read.pool),
        "primary": SHOWN[read.kind][0],
        "baseline": BASELINE,
        "rows": rows,
    }
    write_file(stages.out / "compare.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    write_file(stages.out / "compare.html", html(found))
    return found


def answer_files(task: Task) -> dict[str, str]:
    parts = {"test": task.questions, "examples": task.examples, "general": task.general}
    return {name: lines(rows) for name, rows in parts.items() if rows}


def prompting(task: Task, stages: Stages) -> list[Done]:
    config = task.config("prompting", "answer")
    return [stages.run("prompting-answer", config, answer_files(task))]


def rag(task: Task, stages: Stages) -> list[Done]:
    """Raises DataError where there is nothing to retrieve."""
    if not task.documents:
        raise DataError("the task has no documents: there is nothing to retrieve")
    settings = task.section("rag", "index")
    index = stages.index("rag-index", task.documents, settings)
    mode = {} if settings.get("dense", True) else {"mode": "bm25"}
    given = task.section("rag", "answer")
    config = task.config(
        "rag",
        "answer",
        index=str(index.folder / "index"),
        prompt=task.rag_prompt(),
        **({} if "mode" in {**task.answer, **given} else mode),
    )
    return [index, stages.run("rag-answer", config, answer_files(task))]


def sft(task: Task, stages: Stages) -> list[Done]:
    trained = stages.run(
        "sft", task.config("sft", "sft"), {"train": lines(task.conversations("sft"))}
    )
    return [trained, answered(task, stages, "sft", trained)]


def pretrain_sft(task: Task, stages: Stages) -> list[Done]:
    """Raises DataError where there is no text to go on pretraining with."""
    if not task.documents:
        raise DataError("the task has no documents: there is no text to pretrain on")
    files = {"train": task.documents}
    if task.general:
        files["general"] = lines(task.general)
    read = stages.run("pretrain", task.config("pretrain_sft", "pretrain"), files)
    config = task.config("pretrain_sft", "sft", adapter={"init_from": str(read.path_of("adapter"))})
    conversations = {"train": lines(task.conversations("pretrain_sft"))}
    trained = stages.run("pretrain-sft", config, conversations)
    return [read, trained, answered(task, stages, "pretrain_sft", trained)]


def answered(task: Task, stages: Stages, approach: str, trained: Done) -> Done:
    """The questions answered by what was trained, without examples, which it has learnt."""
    config = task.config(
        approach,
        "answer",
        adapter=str(trained.path_of("adapter")),
        prompt={"examples": 0},
        general=True,
    )
    return stages.run(f"{approach.replace('_', '-')}-answer", config, answer_files(task))


RUN = {"prompting": prompting, "rag": rag, "sft": sft, "pretrain_sft": pretrain_sft}


def failed(name: str, reason: str) -> Row:
    nothing: dict[str, Any] = dict.fromkeys(
        ("quality", "difference", "retrieval", "cost", "memory", "latency", "forgetting", "stages")
    )
    return {
        "approach": name,
        "title": APPROACHES[name],
        "status": "failed",
        "reason": reason,
    } | nothing


def row_of(name: str, kind: str, done: Sequence[Done], stages: Stages) -> Row:
    """What became of an approach: its last stage's figures, and what all of its stages took."""
    last = done[-1].result
    metrics, about = last["metrics"], last["answer"]
    general = about.get("general")
    measuring = general["cpu_s"] if general else 0.0
    return failed(name, "") | {
        "status": "done",
        "reason": None,
        "quality": {key: figure(metrics, key) for key in SHOWN[kind]},
        "retrieval": {key: figure(metrics, key) for key in FOUND if key in metrics} or None,
        "cost": {
            "wall_s": round(sum(each.wall_s for each in done), 2),
            "cpu_s": round(sum(each.cpu_s for each in done), 2),
            "cpu_s_before_answering": round(sum(each.cpu_s for each in done[:-1]), 2),
            "cpu_s_answering": round(done[-1].cpu_s - measuring, 2),
            "cpu_s_measuring_general": round(measuring, 2),
            "prompt_tokens": about["prompt_tokens"],
            "answer_tokens": about["answer_tokens"],
        },
        "memory": {
            "peak_mb": max(each.peak_mb for each in done),
            "peak_mb_answering": about["peak_mb"],
        },
        "latency": {
            "median_s": metrics["answer/latency_median_s"],
            "p95_s": metrics["answer/latency_p95_s"],
            "questions_at_once": about["block"],
        },
        "forgetting": forgetting(metrics) if general else None,
        "cut": about["cut"],
        "prompt": about["prompt"],
        "stages": [
            {
                "stage": each.name,
                "folder": str(each.folder.relative_to(stages.out)),
                "wall_s": round(each.wall_s, 2),
                "cpu_s": round(each.cpu_s, 2),
                "peak_mb": each.peak_mb,
                "steps": each.result.get("steps"),
                "attempts": each.attempts,
                "cut_off": each.cut_off,
            }
            for each in done
        ],
    }


def figure(metrics: Mapping[str, float], name: str) -> dict[str, float | None]:
    ends = {end: metrics.get(f"{name}_{end}") for end in ("low", "high")}
    return {"value": metrics.get(name), **ends}


def forgetting(metrics: Mapping[str, float]) -> dict[str, Any]:
    """Perplexity of general text by the base and by what was trained; change above 0: forgotten."""
    return {name: figure(metrics, f"pretrain/general_{name}") for name in FORGOTTEN}


def difference(task: Task, rows: Sequence[Row], baseline: Sequence[Row]) -> dict[str, Any]:
    """Mean difference of the compared score to prompting's, question by question."""
    name = PRIMARY[task.kind]
    pairs = [
        (row["id"], row["scores"][name] - other["scores"][name])
        for row, other in zip(rows, baseline, strict=True)
        if row["scores"] is not None
    ]
    ids, values = zip(*pairs, strict=True)
    value, low, high = clustered_interval(values, ids)
    return {"score": name, "value": value, "low": low, "high": high, "n": len(ids)}
