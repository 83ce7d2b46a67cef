"""What a run answered: its figures, and example answers with the passages that they rest on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Q

from training.models import Run, TextDocument, TextSet
from training.selectors.compared import NAMES
from training.selectors.findings import Figure, figure_in
from training.selectors.logs import inside_runs
from training.selectors.text_sets import gold_of

#: Answers that a page shows, and characters of one passage.
SHOWN, PASSAGE = 12, 600
#: Bytes of a line beyond which an answer is not read.
LONGEST_LINE = 1_000_000


@dataclass(frozen=True)
class Source:
    """A passage that stood in the prompt."""

    n: int
    document: str
    title: str
    text: str
    cited: bool
    #: Whether the question names its document; None where it names none.
    right: bool | None


@dataclass(frozen=True)
class Answered:
    """One question with what was said. All of it is text that somebody or some model wrote."""

    question: str
    gold: list[tuple[str, str]]
    answer: str
    #: Of the compared score, 0 to 1; None where nobody said what is right.
    score: float | None
    sources: list[Source]
    #: Numbers that were cited and stand at no passage.
    nowhere: list[int]


@dataclass(frozen=True)
class Answering:
    """The figures of an answering run."""

    figures: list[tuple[str, Figure]]
    about: Mapping[str, Any]
    retrieval: Mapping[str, Any] | None
    examples: list[Answered]
    latency_median_s: float | None
    latency_p95_s: float | None


def answering(run: Run) -> Answering | None:
    """None for a run that answered no questions."""
    result = run.result or {}
    about, metrics = result.get("answer"), result.get("metrics") or {}
    if run.method != Run.Method.ANSWER or not about:
        return None
    return Answering(
        figures=[(title, figure_in(metrics, name)) for name, title in NAMES.items()
                 if name in metrics],
        about=about,
        retrieval=about.get("retrieval"),
        examples=examples(run, str(result.get("answers", ""))),
        latency_median_s=metrics.get("answer/latency_median_s"),
        latency_p95_s=metrics.get("answer/latency_p95_s"),
    )  # fmt: skip


def examples(run: Run, path: str) -> list[Answered]:
    """The first answers of a run; none where its file is gone."""
    rows = list(first_rows(f"{run.folder}/{path}")) if path else []
    asked = texts_by_id(run.text_set, (str(row.get("id")) for row in rows))
    found = texts_by_id(
        run.documents,
        (str(each["document"]) for row in rows for each in row.get("passages", ())),
    )
    return [answered(row, asked.get(str(row.get("id"))), found) for row in rows]


def first_rows(relative: str) -> Iterator[dict[str, Any]]:
    file = inside_runs(relative)
    if file is None or not file.is_file():
        return
    with file.open("rb") as handle:
        for _ in range(SHOWN):
            line = handle.readline(LONGEST_LINE)
            try:
                row = json.loads(line)
            except ValueError:  # the end, or a line that is longer
                return
            yield row


def texts_by_id(text_set: TextSet | None, ids: Iterable[str]) -> dict[str, TextDocument]:
    """Texts by the id under which the engine read them (`folders.text_row`)."""
    if text_set is None:
        return {}
    wanted = set(ids)
    positions = [int(name) for name in wanted if name.isdecimal() and len(name) < 10]
    rows = text_set.documents.filter(Q(fields__id__in=list(wanted)) | Q(position__in=positions))
    named = {str(row.fields.get("id", row.position)): row for row in rows}
    return {name: row for name, row in named.items() if name in wanted}


def answered(
    row: Mapping[str, Any], asked: TextDocument | None, found: Mapping[str, TextDocument]
) -> Answered:
    cited = {each["n"]: each["document"] for each in row.get("citations", ())}
    gold = asked.fields.get("documents") if asked is not None else None
    sources = [
        source(each, found.get(str(each["document"])), each["n"] in cited, gold)
        for each in row.get("passages", ())
    ]
    return Answered(
        question=asked.text if asked is not None else f"question {row.get('id')}",
        gold=[each for each in gold_of(asked) if each[0] != "document"] if asked else [],
        answer=str(row.get("answer", "")),
        score=score_of(row.get("scores")),
        sources=sources,
        nowhere=[n for n, document in cited.items() if document is None],
    )


def source(
    passage: Mapping[str, Any], document: TextDocument | None, cited: bool, gold: list[str] | None
) -> Source:
    text = document.text[passage["start"] : passage["end"]] if document is not None else ""
    return Source(
        n=passage["n"],
        document=str(passage["document"]),
        title=document.title if document is not None else "",
        text=text[:PASSAGE] + ("…" if len(text) > PASSAGE else ""),
        cited=cited,
        right=None if not gold else passage["document"] in gold,
    )


def score_of(scores: Mapping[str, Any] | None) -> float | None:
    if scores is None:
        return None
    return next((float(scores[key]) for key in ("right", "field_f1", "f1") if key in scores), None)
