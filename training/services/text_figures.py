"""What is counted of a text set as it comes in: languages, writing, labels, what has no answer."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from annotate.errors import AnnotateError
from training.models import TextSet
from training.services.text_rows import TASKS, Document

#: Letters of a text that are looked at to tell its writing.
LETTERS = 60
#: Characters among which they are looked for.
LOOK_AT = 1000
#: Entries of a count that are kept; there is a label a class, and a class a text would be no label.
MOST = 1000


def count_texts(
    kind: str, documents: Sequence[Document], held_out: Collection[str]
) -> dict[str, Any]:
    """The figures of a set. Raises AnnotateError where its kind needs more than is there.

    held_out: digests of the texts that are never trained on.
    """
    found: dict[str, Any] = {
        "writing": most(Counter(writing_of(each.text) for each in documents)),
        "languages": most(
            Counter(str(each.fields["language"]) for each in documents if "language" in each.fields)
        ),
        "characters": characters(documents),
    }
    if kind == TextSet.Kind.LABELLED:
        found["labels"] = labels(documents, held_out)
    if kind == TextSet.Kind.QUESTIONS:
        found |= answers(documents)
    return found


def characters(documents: Sequence[Document]) -> dict[str, int]:
    sizes = sorted(len(each.text) for each in documents)
    return {"shortest": sizes[0], "median": sizes[len(sizes) // 2], "longest": sizes[-1]}


def most(counted: Counter[str]) -> dict[str, int]:
    return dict(counted.most_common(MOST))


def labels(documents: Sequence[Document], held_out: Collection[str]) -> dict[str, list[int]]:
    """[texts to train on, texts held out] of every label, the most frequent first."""
    every = Counter(str(each.fields["label"]) for each in documents)
    if len(every) < 2:
        raise AnnotateError(
            f"all {len(documents)} texts have the label {next(iter(every))!r}: there is nothing to "
            "tell apart; bring texts of two labels or more"
        )
    if len(every) > MOST:
        raise AnnotateError(
            f"the texts have {len(every):,} labels; at most {MOST:,} can be told apart. Is the "
            "label column the right one?"
        )
    apart = Counter(str(each.fields["label"]) for each in documents if each.digest in held_out)
    return {name: [count - apart[name], apart[name]] for name, count in every.most_common()}


def answers(documents: Sequence[Document]) -> dict[str, Any]:
    """Which task the questions pose, and how many say nothing of what is right."""
    tasks = Counter(task_of(each) for each in documents)
    without = tasks.pop("", 0)
    if not tasks:
        raise AnnotateError(
            f"none of {without} questions has an answer (answers, fields or label): nothing could "
            "be measured on them; add answers to some"
        )
    if len(tasks) > 1:
        said = ", ".join(f"{count} for {name}" for name, count in tasks.most_common())
        raise AnnotateError(
            f"the questions have answers of different kinds ({said}); a set has answers, fields or "
            "label alone: split it"
        )
    task = next(iter(tasks))
    found: dict[str, Any] = {"task": task, "without_answer": without}
    return found | {"naming_documents": sum("documents" in each.fields for each in documents)}


def task_of(question: Document) -> str:
    return next((task for name, task in TASKS.items() if name in question.fields), "")


def writing_of(text: str) -> str:
    """The writing most of a text's first letters are of, as Unicode names it; no language."""
    seen: Counter[str] = Counter()
    for letter in text[:LOOK_AT]:
        if letter.isalpha():
            seen[script(letter)] += 1
            if seen.total() == LETTERS:
                break
    return seen.most_common(1)[0][0] if seen else "none"


@lru_cache(maxsize=20_000)
def script(letter: str) -> str:
    first = unicodedata.name(letter, "UNKNOWN").split()[0].partition("-")[0]
    return "Han" if first == "CJK" else first.capitalize()
