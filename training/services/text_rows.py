"""A row of a file as one text of a set: what each kind has to hold, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from annotate.errors import BadRow
from annotate.formats.canonical import canonical_json, messages_problem, sha256, shown, text_problem
from annotate.formats.reading import Row
from training.engine.files import REPLACED
from training.models import TextSet

MAX_TITLE = 300
#: Characters of a row's own id.
MAX_ID = 500
#: Gold answers of a question by the engine's task that reads them (docs/methods/answer.md).
TASKS = {"answers": "text", "fields": "json", "label": "labels"}


@dataclass(frozen=True)
class Document:
    """A text as a file gave it; `fields` is what the engine reads beside it."""

    title: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        content: dict[str, Any] = {"title": self.title, "text": self.text}
        return sha256(canonical_json(content | ({"fields": self.fields} if self.fields else {})))


class Unfit(Exception):
    """Raised when a row is no text of its kind; says why."""


def one_document(row: Row, line: int, kind: str = TextSet.Kind.DOCUMENTS) -> Document | BadRow:
    """A row as a text of its kind, or why it is none; further fields are left out."""
    try:
        return READ[kind](row)
    except Unfit as reason:
        return BadRow(line, str(reason))


def document(row: Row) -> Document:
    title, text = row.get("title") or "", row.get("text")
    refuse(text_problem(title, "title"))
    return Document(str(title).strip()[:MAX_TITLE], words(text, "text"), own_id(row) | said_of(row))


def labelled(row: Row) -> Document:
    found = label_of(row.get("label"))
    if found is None:
        raise Unfit("label is missing; every labelled text needs one")
    fields = {"label": found}
    return Document("", words(row.get("text"), "text"), own_id(row) | fields | said_of(row))


def question(row: Row) -> Document:
    """A question without a gold answer is one too: it is answered, and not scored."""
    text = words(row.get("question"), "question")
    fields: dict[str, Any] = {}
    given = [name for name in TASKS if row.get(name) not in (None, [], {}, "")]
    if len(given) > 1:
        raise Unfit(f"{' and '.join(given)} are there; a question has one of them")
    if given:
        fields[given[0]] = gold(given[0], row[given[0]])
    if row.get("documents"):
        fields["documents"] = list_of_texts(row["documents"], "documents")
    return Document("", text, own_id(row) | fields | said_of(row))


def gold(name: str, value: Any) -> Any:
    if name == "label":
        return label_of(value)
    if name == "answers":
        answers = list_of_texts([value] if isinstance(value, str) else value, "answers")
        if not all(each.strip() for each in answers):
            raise Unfit("answers holds an empty one; leave it out")
        return answers
    if not isinstance(value, dict):
        raise Unfit(f"fields is {shown(value)}, not an object")
    for key, each in value.items():
        if not isinstance(each, str | bool | int | float):
            raise Unfit(f"fields: {key} is {shown(each)}; a text, a number, true or false is read")
    return value


def conversation(row: Row) -> Document:
    messages = row.get("messages")
    refuse(messages_problem(messages, "messages"))
    assert isinstance(messages, list)  # noqa: S101 - refused above otherwise
    plain = [{"role": each["role"], "content": each["content"]} for each in messages]
    if plain[-1]["role"] != "assistant" or not plain[-1]["content"].strip():
        raise Unfit("messages does not end with an answer of the assistant, so nothing is learnt")
    asked = [each["content"] for each in plain if each["role"] == "user"]
    if not asked or not asked[-1].strip():
        raise Unfit("messages holds no question of a user")
    refuse(*(document_problem(each["content"], "messages") for each in plain if each["content"]))
    return Document("", asked[-1], own_id(row) | {"messages": plain} | said_of(row))


READ: dict[str, Callable[[Row], Document]] = {
    TextSet.Kind.DOCUMENTS: document,
    TextSet.Kind.LABELLED: labelled,
    TextSet.Kind.QUESTIONS: question,
    TextSet.Kind.CONVERSATIONS: conversation,
}


def refuse(*problems: str) -> None:
    for problem in problems:
        if problem:
            raise Unfit(problem)


def words(value: object, name: str) -> str:
    refuse(text_problem(value, name), document_problem(value, name))
    return str(value)


def own_id(row: Row) -> dict[str, str]:
    """The row's own id, by which questions name documents; none where it has none."""
    value = row.get("id")
    if value is None or value == "":
        return {}
    name = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    refuse(text_problem(name, "id"))
    if len(str(name)) > MAX_ID:
        raise Unfit(f"id has {len(str(name))} characters; at most {MAX_ID}")
    return {"id": str(name)}


def said_of(row: Row) -> dict[str, str]:
    """The language that a row names itself."""
    value = row.get("language")
    if value in (None, ""):
        return {}
    refuse(text_problem(value, "language"))
    return {"language": str(value).strip()[:40]}


def label_of(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None:
        return None
    refuse(text_problem(value, "label"))
    if not str(value).strip():
        raise Unfit("label is empty")
    return str(value).strip()


def list_of_texts(value: Any, name: str) -> list[str]:
    if not isinstance(value, list):
        raise Unfit(f"{name} is {shown(value)}, not a list of texts")
    refuse(*(text_problem(each, f"an entry of {name}") for each in value))
    return value


def document_problem(text: object, name: str = "text") -> str:
    """Why a text is no document; empty where it is one."""
    given = str(text)
    if not given.strip():
        return f"{name} is empty"
    if given.count("\ufffd") / len(given) > REPLACED:
        return f"{name} was read in a wrong encoding before (U+FFFD); go back to its source"
    return text_problem(given, name)
