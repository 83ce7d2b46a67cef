"""The benchmark's rows, stage by stage. Runs are the engine's own, each in a child process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adaptation import data, settings
from training.engine.classify_metrics import Answers, figures
from training.engine.compare import run_comparison
from training.engine.compare_stages import Done, Stages
from training.engine.config import from_dict
from training.engine.intervals import clustered_interval

Figure = Sequence[float | None]
#: By how much continued pretraining has to lower the domain's perplexity.
LOWER = -0.15
#: How far below bm25s alone our recall may fall: about a question in two hundred.
LEEWAY = 0.005
#: How seconds of a search are to be read.
SEARCHED = "latency is a mean; CPU seconds are those of indexing and search, imports left out"


@dataclass
class Row:
    """One line of the table. Figures are (value, low, high) of a 95 % interval."""

    stage: str
    name: str
    figures: dict[str, Figure]
    cpu_s: float | None = None
    peak_mb: float | None = None
    latency_s: tuple[float, float] | None = None
    """Median and 95th percentile of one text or question at a time."""
    reach: str = ""
    """What it should reach; empty where nothing is set."""
    missed: str = ""
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Bench:
    """The folder of the runs: what ended well is not run again."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.stages = Stages(out)

    def run(self, name: str, config: dict[str, Any], files: dict[str, list[data.Row]]) -> Done:
        texts = {key: data.lines(rows) for key, rows in files.items()}
        folder = re.sub(r"[^a-z0-9]+", "-", name.lower())
        return self.stages.run(folder, from_dict(config), texts)

    def child(self, name: str, *arguments: str) -> dict[str, Any]:
        """What a process of `children` prints; kept in no file, it takes seconds."""
        command = [sys.executable, "-m", "benchmarks.adaptation", "--child", name, *arguments]
        done = subprocess.run(command, cwd=data.ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"bench: {name} failed:\n{done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
        return found


def figure(metrics: dict[str, Any], name: str) -> Figure:
    return [metrics.get(each) for each in (name, f"{name}_low", f"{name}_high")]


def by_class(metrics: dict[str, Any]) -> dict[str, Figure]:
    named = (("accuracy", "classify/accuracy"), ("macro-F1", "classify/macro_f1"))
    return {title: figure(metrics, name) for title, name in named}


def majority(stage: str, train: list[data.Row], test: list[data.Row]) -> Row:
    """Always the most frequent label of the training rows."""
    labels = sorted({row["label"] for row in train})
    counts = Counter(row["label"] for row in train)
    said = labels.index(max(labels, key=lambda label: counts[label]))
    answers = Answers(
        logits=np.tile(np.eye(len(labels))[said], (len(test), 1)),
        targets=np.array([labels.index(row["label"]) for row in test]),
        texts=[row["text"] for row in test],
        labels=labels,
    )
    metrics, _ = figures(answers, majority=said)
    return Row(stage, "majority", by_class(metrics))


def classifier(
    bench: Bench,
    stage: str,
    name: str,
    config: dict[str, Any],
    rows: tuple[list[data.Row], list[data.Row]],
) -> Row:
    """A trained classifier, measured by its run, and timed in stock transformers."""
    train, test = rows
    done = bench.run(f"{stage} {name}", config, {"train": train, "test": test})
    kind = "model" if done.result.get("model") else "adapter"
    saved, source = str(done.path_of(kind)), config["base"]["source"]
    alone = bench.child("served", saved, source, str(done.folder / "data" / "test.jsonl"))
    return Row(
        stage,
        name,
        by_class(done.result["metrics"]),
        done.cpu_s,
        done.peak_mb,
        (alone["median_s"], alone["p95_s"]),
        notes=[
            f"{len(train)} rows, {done.result['steps']} steps; ECE "
            f"{done.result['metrics']['classify/ece']:.3f}; stock transformers alone: "
            f"{alone['accuracy']:.3f} right of the first {alone['rows']}, "
            f"{alone['peak_mb']:.0f} MB"
        ],
    )


def prompted(bench: Bench, stage: str, examples: int, rows: tuple[list[data.Row], ...]) -> Row:
    """The base asked for the most probable label, with similar examples or without."""
    train, test = ([ask(row) for row in part] for part in rows)
    config = settings.prompting(sorted({row["label"] for row in train}), examples)
    name = f"prompt, {examples} similar examples" if examples else "prompt, no examples"
    files = {"test": test} | ({"examples": train} if examples else {})
    done = bench.run(f"{stage} prompt {examples}", config, files)
    metrics = done.result["metrics"]
    latency = (metrics["answer/latency_median_s"], metrics["answer/latency_p95_s"])
    notes = [f"the first {settings.PROMPTED} held-out texts"]
    return Row(stage, name, by_class(metrics), done.cpu_s, done.peak_mb, latency, notes=notes)


def ask(row: data.Row) -> data.Row:
    return {"id": row["id"], "question": row["text"], "label": row["label"]}


def must_beat(row: Row, others: Sequence[Row]) -> None:
    """Set what a trained row should reach: its interval above every baseline's."""
    best = max(others, key=lambda each: each.figures["accuracy"][2] or 0.0)
    row.reach = f"accuracy's interval above that of “{best.name}”"
    low, high = row.figures["accuracy"][1], best.figures["accuracy"][2]
    assert low is not None
    assert high is not None
    if low <= high:
        row.missed = f"from {low:.3f}, where “{best.name}” goes up to {high:.3f}"


def banking_some(bench: Bench) -> list[Row]:
    """20 intents: trained, prompted, guessed."""
    stage, rows = "banking77, 20 intents", data.banking(every=False)
    guess = majority(stage, *rows)
    full = classifier(bench, stage, "full MiniLM", settings.MINILM, rows)
    plain = prompted(bench, stage, 0, rows)
    shown = prompted(bench, stage, 3, rows)
    lora = classifier(bench, stage, "LoRA SmolLM2", settings.SMOLLM2, rows)
    for trained in (full, lora):
        must_beat(trained, (guess, plain, shown))
    return [guess, plain, shown, full, lora]


def banking_all(bench: Bench) -> list[Row]:
    """All 77 intents, which the encoder is trained on in minutes."""
    stage, rows = "banking77, all 77 intents", data.banking(every=True)
    guess = majority(stage, *rows)
    full = classifier(bench, stage, "full MiniLM", settings.MINILM_ALL, rows)
    must_beat(full, (guess,))
    return [guess, full]


def spam(bench: Bench) -> list[Row]:
    """Two classes, one of them rare."""
    stage, rows = "SMS spam", data.sms()
    guess = majority(stage, *rows)
    full = classifier(bench, stage, "full MiniLM", settings.SMS, rows)
    must_beat(full, (guess,))
    return [guess, full]


def domain(bench: Bench) -> list[Row]:
    """Continued pretraining on Django's documentation: what is learnt, what is forgotten."""
    train, test = data.django()
    done = bench.run("pretrain-django", settings.PRETRAIN, {"train": train, "test": test})
    metrics = done.result["metrics"]
    named = {
        f"{text} {what}": figure(metrics, f"pretrain/{text}_{key}")
        for text in ("domain", "general")
        for what, key in (
            ("perplexity before", "perplexity_before"),
            ("perplexity after", "perplexity_after"),
            ("change", "change"),
        )
    }
    change = named["domain change"][0]
    assert change is not None
    return [
        Row(
            "Django's documentation",
            "continued pretraining, LoRA SmolLM2",
            named,
            done.cpu_s,
            done.peak_mb,
            reach="domain perplexity down by 15 % or more",
            missed="" if change <= LOWER else f"{change:+.1%}",
            notes=[f"{len(train)} pages trained on, {len(test)} others held out"],
        )
    ]


def retrieval(bench: Bench) -> list[Row]:
    """Each question of XQuAD seeks its paragraph: our index, and a library's BM25 alone."""
    documents, questions = data.xquad()
    index = bench.stages.index("xquad-index", data.lines(documents), {})
    stage = "XQuAD, retrieval"
    alone = bench.child("library")
    rows = [retrieval_row(stage, "bm25s alone", alone)]
    paragraphs = [each["documents"][0] for each in questions]
    for mode in ("bm25", "dense", "hybrid"):
        found = bench.child("retrieved", str(index.folder / "index"), mode, "en")
        row = retrieval_row(stage, f"our index, {mode}", found)
        pairs = [own - other for own, other in zip(found["hits"], alone["hits"], strict=True)]
        row.figures["recall@5, difference"] = list(clustered_interval(pairs, paragraphs))
        value = row.figures["recall@5, difference"][0]
        assert value is not None
        if mode != "dense":
            row.reach = f"recall@5 no more than {LEEWAY} below bm25s alone"
            row.missed = "" if value >= -LEEWAY else f"{value:+.4f}"
        if mode != "bm25":
            row.cpu_s = found["cpu_s"] + index.cpu_s
            row.notes.append("CPU seconds with the making of the index, imports included")
        rows.append(row)
    return rows


def retrieval_elsewhere(bench: Bench) -> list[Row]:
    """The same in Chinese and in Arabic: n-grams of characters, and vectors of an English model."""
    rows = []
    for language, name in (("zh", "Chinese"), ("ar", "Arabic")):
        documents, _ = data.xquad(language)
        index = bench.stages.index(f"xquad-{language}-index", data.lines(documents), {})
        for mode in ("bm25", "dense", "hybrid"):
            found = bench.child("retrieved", str(index.folder / "index"), mode, language)
            rows.append(retrieval_row(f"XQuAD in {name}, retrieval", f"our index, {mode}", found))
    return rows


def retrieval_row(stage: str, name: str, found: dict[str, Any]) -> Row:
    shown = {"recall@5": found["recall"], "MRR": found["mrr"]}
    each = (found["each_s"], found["each_s"])
    return Row(stage, name, shown, found["cpu_s"], found["peak_mb"], each, notes=[SEARCHED])


def side_by_side(bench: Bench) -> list[Row]:
    """Prompting, RAG, SFT, and continued pretraining before SFT on one task (`compare`)."""
    documents, asked, examples = data.answering()
    folder = bench.out / "compare"
    data.write(folder / "documents.jsonl", documents)
    data.write(folder / "questions.jsonl", asked)
    data.write(folder / "examples.jsonl", examples)
    task = settings.COMPARE | {
        "questions": "questions.jsonl",
        "examples": "examples.jsonl",
        "documents": ["documents.jsonl"],
    }
    found = run_comparison(task, folder, folder=folder)
    return [compared(row, found) for row in found["rows"]]


def compared(row: dict[str, Any], found: dict[str, Any]) -> Row:
    """A row of compare.json as one of the table."""
    stage = f"XQuAD, {found['questions']} questions"
    if row["status"] != "done":
        return Row(stage, row["title"], {}, missed=f"failed: {row['reason']}", reach="an end")

    def spread(part: dict[str, Any]) -> Figure:
        return [part[end] for end in ("value", "low", "high")]

    shown = {
        "F1": spread(row["quality"]["answer/f1"]),
        "exact": spread(row["quality"]["answer/exact"]),
    }
    if row["difference"]:
        shown["F1, difference to prompting"] = spread(row["difference"])
    if row["retrieval"]:
        shown["recall of passages"] = spread(row["retrieval"]["answer/recall"])
    if row["forgetting"]:
        shown["general perplexity before"] = spread(row["forgetting"]["perplexity_before"])
        shown["general perplexity after"] = spread(row["forgetting"]["perplexity_after"])
        shown["general change"] = spread(row["forgetting"]["change"])
    made = Row(
        stage,
        row["title"],
        shown,
        row["cost"]["cpu_s"] - row["cost"]["cpu_s_measuring_general"],
        row["memory"]["peak_mb"],
        (row["latency"]["median_s"], row["latency"]["p95_s"]),
    )
    if row["approach"] == "rag":
        made.reach = "F1 above prompting's, the interval of the difference above 0"
        low = row["difference"]["low"] if row["difference"] else None
        made.missed = "" if low is not None and low > 0 else f"the difference begins at {low}"
    return made


#: In the order in which they are run.
STAGES = {
    "banking-some": banking_some,
    "domain": domain,
    "retrieval": retrieval,
    "retrieval-elsewhere": retrieval_elsewhere,
    "spam": spam,
    "compare": side_by_side,
    "banking-all": banking_all,
}
