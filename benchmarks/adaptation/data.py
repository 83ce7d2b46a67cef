"""Slices of real data: where they come from and how they were drawn is in benchmarks/README.md."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from training.engine.prompting import normal

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "benchmarks" / "data"
#: Every fourth of banking77's intents in alphabetical order, 20 of them: what a decoder can be
#: trained on in minutes. Neighbours in the alphabet are alike, so all 77 are harder.
SOME_CLASSES = slice(0, None, 4)
#: Paragraphs of XQuAD that `compare` answers from, with all their questions.
PARAGRAPHS = 40

Row = dict[str, Any]


def read(name: str) -> list[Row]:
    with gzip.open(DATA / name, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def numbered(rows: Iterable[Row], split: str) -> list[Row]:
    chosen = [row for row in rows if row["split"] == split]
    return [
        {"id": f"{split}-{number}"} | {key: row[key] for key in row if key != "split"}
        for number, row in enumerate(chosen)
    ]


def banking(*, every: bool) -> tuple[list[Row], list[Row]]:
    """(training rows, held-out rows) of all intents, or of those in SOME_CLASSES.

    Labels are written with spaces, so that a language model reads words. Rows are in the order of
    their hash, so that the first ones are a fair draw.
    """
    rows = sorted(
        read("banking77.jsonl.gz"),
        key=lambda row: hashlib.sha256(row["text"].encode()).hexdigest(),
    )
    names = sorted({row["label"] for row in rows})
    kept = set(names if every else names[SOME_CLASSES])
    rows = [
        {**row, "label": row["label"].replace("_", " ")} for row in rows if row["label"] in kept
    ]
    return numbered(rows, "train"), numbered(rows, "test")


def sms() -> tuple[list[Row], list[Row]]:
    """(training rows, held-out rows): ham or spam."""
    rows = read("sms-spam.jsonl.gz")
    return numbered(rows, "train"), numbered(rows, "test")


def django() -> tuple[list[Row], list[Row]]:
    """(documents to train on, other documents held out)"""
    rows = read("django-docs.jsonl.gz")
    return (
        [{"id": row["id"], "text": row["text"]} for row in rows if row["split"] == "train"],
        [{"id": row["id"], "text": row["text"]} for row in rows if row["split"] == "test"],
    )


def xquad(language: str = "en") -> tuple[list[Row], list[Row]]:
    """(paragraphs as documents, questions with their answers and their document's id)"""
    with gzip.open(DATA / f"xquad.{language}.json.gz", "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    documents, questions = [], []
    for article in articles:
        for paragraph in article["paragraphs"]:
            name = f"p{len(documents)}"
            documents.append({"id": name, "text": paragraph["context"]})
            questions += [
                {
                    "id": each["id"],
                    "question": each["question"],
                    "answers": [answer["text"] for answer in each["answers"]],
                    "documents": [name],
                }
                for each in paragraph["qas"]
            ]
    return documents, questions


def answering() -> tuple[list[Row], list[Row], list[Row]]:
    """(paragraphs, questions that are asked, others on the same paragraphs with their answers):
    of every paragraph's questions the first is asked. Two paragraphs may share a question: an
    example that is asked elsewhere, word for word, is left out."""
    documents, questions = xquad()
    documents = documents[:PARAGRAPHS]
    kept = {row["id"] for row in documents}
    asked: dict[str, Row] = {}
    examples = []
    for question in questions:
        (name,) = question["documents"]
        if name in kept:
            if name in asked:
                examples.append(question)
            else:
                asked[name] = question
    said = {normal(row["question"]) for row in asked.values()}
    examples = [row for row in examples if normal(row["question"]) not in said]
    return documents, list(asked.values()), examples


def write(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines(rows), encoding="utf-8")
    return path


def lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
