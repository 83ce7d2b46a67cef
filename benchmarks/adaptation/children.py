"""What is measured in a process of its own beside the engine's runs; each prints one JSON line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from benchmarks.adaptation import data
from benchmarks.adaptation.settings import THREADS
from benchmarks.training.machine import peak_mb

#: Texts that a saved classifier reads one at a time, after a few that are not counted.
TIMED, WARM = 50, 5
#: Chunks from whose documents a ranking is made.
DEPTH = 50
RECALLED = 5


def served(saved: str, source: str, rows: str) -> dict[str, Any]:
    """A saved classifier in stock transformers and PEFT, one text at a time, as a service would.

    saved: its model/ or adapter/ folder. source: the base that an adapter is put on.
    """
    import numpy as np
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    from training.engine.sources import locate

    torch.set_num_threads(THREADS)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    if (Path(saved) / "adapter_config.json").is_file():
        config = AutoConfig.from_pretrained(saved)
        base = AutoModelForSequenceClassification.from_pretrained(locate(source), config=config)
        model = PeftModel.from_pretrained(base, saved)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(saved)
    model.eval()
    taken, right = [], []
    chosen = [json.loads(line) for line in Path(rows).read_text(encoding="utf-8").splitlines()]
    with torch.no_grad():
        for row in chosen[: WARM + TIMED]:
            started = time.perf_counter()
            encoded = tokenizer(row["text"], truncation=True, max_length=128, return_tensors="pt")
            logits = model(**encoded).logits[0]
            taken.append(time.perf_counter() - started)
            right.append(model.config.id2label[int(logits.argmax())] == row["label"])
    median, p95 = np.percentile(taken[WARM:], [50, 95])
    return {
        "median_s": float(median),
        "p95_s": float(p95),
        "accuracy": sum(right) / len(right),
        "rows": len(right),
        "peak_mb": peak_mb(),
    }


def retrieved(index: str, mode: str, language: str) -> dict[str, Any]:
    """Whether each question of XQuAD finds its paragraph among the first RECALLED of our index."""
    from training.engine.retrieval import open_index

    _, questions = data.xquad(language)
    started, before = time.perf_counter(), time.process_time()
    retriever = open_index(Path(index))
    rankings = [retriever.rank_documents(each["question"], DEPTH, mode) for each in questions]
    return found_of(rankings, questions) | {
        "cpu_s": time.process_time() - before,
        "each_s": (time.perf_counter() - started) / len(questions),
        "peak_mb": peak_mb(),
    }


def library() -> dict[str, Any]:
    """The same by bm25s alone, as its own README uses it: whole paragraphs, English stop words."""
    import bm25s

    documents, questions = data.xquad()
    started, before = time.perf_counter(), time.process_time()
    ranker = bm25s.BM25()
    texts = [each["text"] for each in documents]
    ranker.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    asked = [each["question"] for each in questions]
    tokens = bm25s.tokenize(asked, stopwords="en", show_progress=False)
    places, _ = ranker.retrieve(tokens, k=DEPTH, show_progress=False)
    rankings = [[documents[int(place)]["id"] for place in row] for row in places]
    return found_of(rankings, questions) | {
        "cpu_s": time.process_time() - before,
        "each_s": (time.perf_counter() - started) / len(questions),
        "peak_mb": peak_mb(),
    }


def found_of(rankings: list[list[str]], questions: list[data.Row]) -> dict[str, Any]:
    """Recall and MRR with intervals that draw paragraphs, whose questions are not independent."""
    from training.engine.intervals import clustered_interval, share_interval
    from training.engine.retrieval_metrics import recall_at, reciprocal_rank

    sought = [each["documents"] for each in questions]
    paragraphs = [each[0] for each in sought]
    hits = [
        recall_at(ranking, each, RECALLED) > 0
        for ranking, each in zip(rankings, sought, strict=True)
    ]
    ranks = [reciprocal_rank(ranking, each) for ranking, each in zip(rankings, sought, strict=True)]
    return {
        "recall": list(share_interval(hits, paragraphs)),
        "mrr": list(clustered_interval(ranks, paragraphs)),
        "hits": [int(each) for each in hits],
    }


CHILDREN = {"served": served, "retrieved": retrieved, "library": library}
