"""The folder of a run: config and data for the engine, written once before its first attempt."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

from django.conf import settings

from annotate.export.writers import snapshot_lines
from annotate.models import PromptSet, SnapshotRow
from training.engine.config import from_dict, to_dict
from training.models import Run, TextDocument, TextSet
from training.selectors.evaluations import run_frontier
from training.selectors.judged import judged_between
from training.services.engine_rows import held_out_lines, preference_lines
from training.services.text_rows import TASKS


def run_folder(run: Run) -> Path:
    return Path(settings.RUNS_DIR) / run.folder


def prepare_folder(run: Run) -> Path:
    """The run's folder with config.json and data; written beside and renamed, once.

    Raises OSError where the disk does not take it; nothing is left behind then.
    """
    final = run_folder(run)
    if final.exists():
        return final
    beside = final.with_name(f".{final.name}.{secrets.token_hex(4)}")
    try:
        (beside / "data").mkdir(parents=True)
        for name, lines in data_lines(run).items():
            write_durably(beside / "data" / f"{name}.jsonl", "".join(f"{ln}\n" for ln in lines))
        config = to_dict(from_dict(run.config))
        write_durably(beside / "config.json", json.dumps(config, indent=2) + "\n")
        os.replace(beside, final)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return final


def write_durably(path: Path, text: str) -> None:
    """A file that is on the disk, not only in its cache, when this returns."""
    with path.open("w", encoding="utf-8", newline="\n") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def data_lines(run: Run) -> dict[str, list[str]]:
    """The JSON lines of a run's data files, by name."""
    if run.method == Run.Method.SAMPLE:
        prompt_set = PromptSet.objects.get(
            pk=run.job.payload["prompt_set"], workspace=run.workspace_id
        )
        return {
            "prompts": [prompt_line(e.prompt) for e in prompt_set.entries.select_related("prompt")]
        }
    if run.text_set is not None:
        lines = text_lines(run.text_set)
        if run.documents is not None:
            # nothing is held out of what is looked up in
            lines["documents"] = [*chain.from_iterable(text_lines(run.documents).values())]
        return lines
    snapshot = run.rows_of
    assert snapshot is not None  # noqa: S101 - every other run reads a snapshot
    train = snapshot_lines(snapshot=snapshot, split=SnapshotRow.Split.TRAIN)
    test = list(snapshot_lines(snapshot=snapshot, split=SnapshotRow.Split.TEST))
    if run.method == Run.Method.SFT:
        return {"train": [one for line in train for one in conversation_lines(line)]}
    if run.is_online:
        prompts = {}
        for line in train:
            row = json.loads(line)
            prompts[row["prompt_id"]] = {"id": row["prompt_id"], "prompt": row["prompt"]}
        asked = [json.dumps(row, ensure_ascii=False) for row in prompts.values()]
        if run.method != Run.Method.PPO:
            return {"prompts": asked}
        return {"prompts": asked, "test": test}  # held out for the over-optimisation alarm
    if run.method == Run.Method.EVALUATE:
        judged = [json.dumps(row, ensure_ascii=False) for row in judged_between(run)]
        files = {"test": held_out_lines(snapshot=snapshot)}
        return files | ({"judged": judged} if judged else {}) | frontier_lines(run)
    if run.method == Run.Method.CLASSIFY:
        return {"train": list(train), "test": test}
    ties = run.config.get("reward", {}).get("ties", "skip") != "skip"
    return {"train": preference_lines(snapshot=snapshot, ties=ties), "test": test}


def frontier_lines(run: Run) -> dict[str, list[str]]:
    """Reward and KL of the steps that made the policy which an evaluation measures."""
    policy = run.round and run.round.runs.filter(stage="policy").order_by("-pk").first()
    points = run_frontier(policy) if policy else []
    lines = [json.dumps({"step": p.step, "kl": p.kl, "reward": p.reward}) for p in points]
    return {"frontier": lines} if lines else {}


def text_lines(text_set: TextSet) -> dict[str, list[str]]:
    """Texts to train on, and those held out; of questions those with an answer as examples."""
    train: list[str] = []
    test: list[str] = []
    for each in text_set.documents.order_by("position").iterator(chunk_size=500):
        line = json.dumps(text_row(text_set.kind, each), ensure_ascii=False)
        if each.held_out:
            test.append(line)
        elif text_set.kind != TextSet.Kind.QUESTIONS or any(map(each.fields.get, TASKS)):
            train.append(line)
    first = "examples" if text_set.kind == TextSet.Kind.QUESTIONS else "train"
    return {first: train, "test": test}


def text_row(kind: str, text: TextDocument) -> dict[str, Any]:
    """A text as the engine reads one of its kind."""
    fields = {"id": f"{text.position}", **text.fields}
    if kind == TextSet.Kind.CONVERSATIONS:
        return fields
    if kind == TextSet.Kind.QUESTIONS:
        return {**fields, "question": text.text}
    if kind == TextSet.Kind.LABELLED:
        return {**fields, "text": text.text}
    return {**fields, "title": text.title, "text": text.text}


def prompt_line(prompt: Any) -> str:
    return json.dumps({"id": prompt.digest, "prompt": prompt.messages}, ensure_ascii=False)


def conversation_lines(line: str) -> list[str]:
    """A preference row as the conversation that ends in its chosen answer, or, where people
    rewrote an answer of it, in each of the rewritten ones."""
    row = json.loads(line)
    rewritten = [
        (f"{row['id']}-{number}", [{"role": "assistant", "content": rewrite["text"]}])
        for number, rewrite in enumerate(row.get("rewrites", []), start=1)
    ]
    return [
        json.dumps({"id": name, "messages": [*row["prompt"], *answer]}, ensure_ascii=False)
        for name, answer in rewritten or [(row["id"], row["chosen"])]
    ]
