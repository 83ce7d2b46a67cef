"""Method "compare": the approaches of a comparison as one run, with events and a result.

The task is the run's own folder: data.test holds the questions, data/examples.jsonl what is shown
and trained on, data/documents.jsonl what is looked up in, data/general.jsonl general text. Stages
are kept under compare/, so that another attempt goes on with them. This process has loaded torch
for the checks that every run passes, so a stage's peak memory is at least that of the libraries.
"""

from __future__ import annotations

from typing import Any

from training.engine import distributed
from training.engine.compare import run_comparison
from training.engine.compare_task import SECTIONS
from training.engine.config import to_dict
from training.engine.errors import ConfigError, DataError
from training.engine.rundir import RunDir
from training.engine.stopping import raise_if_stopped

#: Files of the task beside its questions, by their names in it.
FILES = {
    "examples": "data/examples.jsonl",
    "documents": "data/documents.jsonl",
    "general": "data/general.jsonl",
}
#: Fields of the config that hold for every stage.
SHARED = ("base", "seed", "threads", "row_budget", "data")
#: Stages of each approach, an index counted too (`compare.RUN`).
STAGES = {"prompting": 1, "rag": 2, "sft": 2, "pretrain_sft": 3}


def train(run: RunDir) -> dict[str, Any]:
    """Run every approach; the table is `comparison` of the result. Raises DataError where none of
    them ended well."""
    settings = run.config.compare
    assert settings is not None  # noqa: S101 - the config guarantees it
    if distributed.size() > 1:
        raise ConfigError("compare starts its own processes; start it without torchrun")
    task = task_of(run)
    total = sum(STAGES[name] for name in settings.approaches)
    begun: list[str] = []

    def begin(stage: str) -> None:
        raise_if_stopped()
        run.events.write("progress", step=len(begun), total_steps=total)
        run.events.write("phase", name=stage)
        begun.append(stage)

    found = run_comparison(task, run.path / "compare", folder=run.path, begun=begin)
    for row in found["rows"]:
        if row["status"] != "done":
            run.events.warning("approach_failed", f"{row['title']}: {row['reason']}")
    if all(row["status"] != "done" for row in found["rows"]):
        reasons = "; ".join(f"{row['title']}: {row['reason']}" for row in found["rows"])
        raise DataError(f"no approach ended well. {reasons}")
    run.events.write("progress", step=total, total_steps=total)
    return {
        "steps": len(begun),
        "rows": found["questions"],
        "metrics": {},
        "comparison": found,
        "report": "compare/compare.html",
    }


def task_of(run: RunDir) -> dict[str, Any]:
    """The run's folder and config as a task (docs/methods/compare.md)."""
    config = to_dict(run.config)
    settings = config["compare"]
    files = {name: path for name, path in FILES.items() if (run.path / path).is_file()}
    data = {name: config["data"][name] for name in ("max_length", "max_prompt_length")}
    return {
        "name": settings["name"],
        "approaches": settings["approaches"],
        "run": {name: config[name] for name in SHARED} | {"data": data},
        "answer": settings["answer"],
        **{name: settings[name] for name in SECTIONS},
        "questions": run.config.data.test,
        **files,
    }
