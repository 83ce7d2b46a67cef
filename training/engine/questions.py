"""Questions with what is right: rows of data.test and of data/examples.jsonl. Holds no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.engine.errors import DataError
from training.engine.rundir import Row, is_text

EXAMPLES = "data/examples.jsonl"


@dataclass(frozen=True)
class Question:
    """A question and its gold answers; which of them is filled is the task's.

    answers: texts that are right. fields: what a JSON object should hold. label: the right one.
    documents: ids of those that hold the answer. scored: whether there is a gold answer.
    """

    id: str
    text: str
    answers: tuple[str, ...] = ()
    fields: dict[str, str] | None = None
    label: str | None = None
    documents: tuple[str, ...] = ()

    @property
    def scored(self) -> bool:
        return bool(self.answers) or self.fields is not None or self.label is not None

    @property
    def answer(self) -> str:
        """The gold answer as an assistant would give it; the first where there are several."""
        if self.fields is not None:
            return json.dumps(self.fields, ensure_ascii=False)
        return self.label if self.label is not None else self.answers[0]


def read_questions(rows: Sequence[Row], task: str, what: str) -> list[Question]:
    """Rows {"id", "question", "answers" | "fields" | "label", "documents"?} in their order.

    Raises DataError naming a row of the wrong shape, and where two have one id.
    """
    found: dict[str, Question] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{what} row {number} ({row.get('id', 'no id')})"
        name, text = row.get("id", number), row.get("question")
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not is_text(name) or not name:
            raise DataError(f"{where}: id must be a text that is not empty")
        if name in found:
            raise DataError(f"{where}: an earlier row has this id; give each its own")
        if not is_text(text) or not text.strip():
            raise DataError(f"{where}: question must be a text that is not empty")
        documents = texts_of(row, "documents", where)
        found[name] = Question(name, text, documents=documents, **gold(row, task, where))
    return list(found.values())


def gold(row: Row, task: str, where: str) -> dict[str, Any]:
    """The gold answer of a row as the field of a `Question`; nothing where it has none."""
    if task == "text":
        answers = tuple(each for each in texts_of(row, "answers", where) if each.strip())
        return {"answers": answers}
    if task == "json":
        fields = row.get("fields")
        if fields is None:
            return {}
        if not isinstance(fields, dict) or not fields:
            raise DataError(f"{where}: fields must be an object with a field in it")
        return {
            "fields": {name: value_of(value, f"{where}: {name}") for name, value in fields.items()}
        }
    label = row.get("label")
    if label is None:
        return {}
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not is_text(label) or not label.strip():
        raise DataError(f"{where}: label must be a text that is not empty")
    return {"label": label}


def value_of(value: Any, where: str) -> str:
    """A field's value as text; a number as JSON writes it."""
    if is_text(value):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise DataError(f"{where} must be a text, a number, true or false")


def texts_of(row: Row, name: str, where: str) -> tuple[str, ...]:
    values = row.get(name) or []
    if not isinstance(values, list) or not all(is_text(value) for value in values):
        raise DataError(f"{where}: {name} must be a list of texts")
    return tuple(values)


def expect_gold(questions: Sequence[Question], task: str) -> int:
    """How many questions have no gold answer. Raises DataError where that is all of them."""
    without = [question.id for question in questions if not question.scored]
    if len(without) == len(questions):
        key = {"text": "answers", "json": "fields", "labels": "label"}[task]
        raise DataError(
            f"none of {len(questions)} questions has a gold answer ({key}): there is nothing to "
            "measure on; `sample` answers prompts without measuring"
        )
    return len(without)


def labels_of(
    named: Sequence[str], questions: Sequence[Question], examples: Sequence[Question]
) -> list[str]:
    """What may be answered: the config's labels, else those of the examples, sorted.

    Raises DataError where there are not two, or a gold label is none of them.
    """
    labels = list(named) or sorted({each.label for each in examples if each.label is not None})
    if len(labels) < 2:
        raise DataError(
            f"there are {len(labels)} labels to choose from; name two or more in answer.labels, or "
            f"give {EXAMPLES} with a label each"
        )
    for question in (*questions, *examples):
        if question.label is not None and question.label not in labels:
            raise DataError(
                f"question {question.id}: label {question.label!r} could never be answered: it is "
                f"none of the {len(labels)} in answer.labels (or {EXAMPLES})"
            )
    return labels
