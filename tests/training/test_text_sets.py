"""Raw documents come in as a whole or not at all, and never change."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from django.core.management import call_command

from annotate.errors import AnnotateError, ImportRefused
from tests.people import People
from training.models import TextSet
from training.services import text_sets
from training.services.text_rows import Document
from training.services.text_sets import import_text_set, store_text_set

pytestmark = pytest.mark.django_db


def rows(path: Path, *texts: object) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_rows_become_a_hashed_set_of_which_a_part_is_held_out(
    people: People, tmp_path: Path
) -> None:
    file = rows(tmp_path / "a.jsonl", *(f"Document {n}." for n in range(20)), "Document 1.")
    made = import_text_set(workspace=people.workspace, path=file, name="law")
    assert (made.n_train, made.n_held_out, made.documents.count()) == (18, 2, 20)
    assert made.documents.filter(held_out=True).count() == 2
    assert import_text_set(workspace=people.workspace, path=file, name="law") == made
    more = rows(tmp_path / "b.jsonl", *(f"Document {n}." for n in range(21)))
    newer = import_text_set(workspace=people.workspace, path=more, name="law")
    assert (newer.version, newer.sha256 != made.sha256) == (2, True)
    assert import_text_set(workspace=people.elsewhere, path=file, name="law").version == 1


def test_a_plain_file_is_one_document_and_trains(people: People, tmp_path: Path) -> None:
    path = tmp_path / "book.md.gz"
    path.write_bytes(gzip.compress(b"# Title\n\nText with\nlines."))
    made = import_text_set(workspace=people.workspace, path=path, name="book")
    assert made.documents.get().text == "# Title\n\nText with\nlines."
    assert (made.n_train, made.n_held_out) == (1, 0)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b'{"text": ""}\n', "text is empty"),
        ("a.jsonl", b'{"title": "x"}\n', "text is missing"),
        ("a.jsonl", b'{"text": "a\\u0000"}\n', "NUL"),
        ("a.jsonl", json.dumps({"text": "\ufffd" * 9 + "a"}).encode(), "wrong encoding"),
        ("a.jsonl", b'{"text": "caf\xe9"}\n', "not UTF-8"),
        ("a.txt", "latin caf\xe9".encode("latin-1"), "line 1: not UTF-8"),
        ("a.txt", "text".encode("utf-16"), "UTF-16"),
        ("a.txt", b"  \n ", "empty"),
        ("a.txt", b"", "empty"),
        ("a.csv", b"title,body\na,b\n", "one of them text"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused_as_a_whole(
    people: People, tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImportRefused, match=words):
        import_text_set(workspace=people.workspace, path=tmp_path / name, name="law")
    assert not TextSet.objects.exists()


def test_bad_rows_may_be_left_out(people: People, tmp_path: Path) -> None:
    file = rows(tmp_path / "a.jsonl", "good", "", "good too")
    made = import_text_set(workspace=people.workspace, path=file, name="law", skip_bad=True)
    assert made.documents.count() == 2


def test_too_much_is_refused(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_sets, "MAX_BYTES", 10)
    with pytest.raises(AnnotateError, match="at most 10"):
        store_text_set(
            workspace=people.workspace, documents=[Document("", "eleven bytes")], name="law"
        )


def test_the_command_imports(
    people: People, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = rows(tmp_path / "a.jsonl", "one", "two")
    call_command("import_text_set", str(file), "--name", "law", "--workspace", "lab")
    assert "1 documents to train on, 1 held out" in capsys.readouterr().out


def stored(people: People, path: Path, kind: str, *rows: object, **asked: object) -> TextSet:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return import_text_set(
        workspace=people.workspace,
        path=path,
        name=kind,
        kind=kind,
        **asked,  # type: ignore[arg-type]
    )


def test_labelled_texts_are_counted_and_no_label_loses_its_last(
    people: People, tmp_path: Path
) -> None:
    rows = [{"text": f"text {n}", "label": "ham"} for n in range(9)]
    made = stored(people, tmp_path / "a.jsonl", "labelled", *rows, {"text": "buy", "label": 7})
    labels = {name: sum(counted) for name, counted in made.figures["labels"].items()}
    assert labels == {"ham": 9, "7": 1}
    assert made.documents.get(fields__label="7").held_out is False
    assert (made.n_train, made.n_held_out) == (8, 2)


def test_questions_say_their_task_and_how_many_have_no_answer(
    people: People, tmp_path: Path
) -> None:
    rows = [
        {"id": 1, "question": "Who?", "answers": "She", "documents": ["d1"], "language": "en"},
        {"question": "من؟", "answers": ["هي", "she"]},
        {"question": "Why?"},
    ]
    made = stored(people, tmp_path / "q.jsonl", "questions", *rows)
    found = {name: made.figures[name] for name in ("task", "without_answer", "languages")}
    assert found == {"task": "text", "without_answer": 1, "languages": {"en": 1}}
    assert made.figures["writing"] == {"Latin": 2, "Arabic": 1}
    assert made.documents.first().fields == {  # type: ignore[union-attr]
        "id": "1", "answers": ["She"], "documents": ["d1"], "language": "en",
    }  # fmt: skip
    assert made.n_held_out == 2


def test_a_conversation_ends_with_an_answer(people: People, tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    made = stored(people, tmp_path / "c.jsonl", "conversations", {"messages": talk})
    assert made.documents.get().fields["messages"] == talk


@pytest.mark.parametrize(
    ("kind", "rows", "words"),
    [
        ("labelled", [{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], "all 2 texts"),
        ("labelled", [{"text": "a"}], "line 1: label is missing"),
        ("questions", [{"question": "a"}], "none of 1 questions has an answer"),
        ("questions", [{"question": "a", "answers": [1]}], "an entry of answers is 1, not text"),
        ("questions", [{"question": "a", "label": "x", "answers": ["y"]}], "one of them"),
        (
            "questions",
            [{"question": "a", "label": "x"}, {"question": "b", "answers": ["y"]}],
            "different kinds",
        ),
        ("conversations", [{"messages": []}], "messages is"),
        ("conversations", [{"messages": [{"role": "user", "content": "a"}]}], "end with an answer"),
        ("documents", [{"id": 1, "text": "a"}, {"id": 1, "text": "b"}], "'1'"),
        ("poems", [{"text": "a"}], "kind 'poems'"),
    ],
)
def test_what_a_kind_lacks_is_said(
    people: People, tmp_path: Path, kind: str, rows: list[object], words: str
) -> None:
    with pytest.raises(AnnotateError, match=words):
        stored(people, tmp_path / "a.jsonl", kind, *rows)
    assert not TextSet.objects.exists()


def test_a_name_keeps_its_kind(people: People, tmp_path: Path) -> None:
    stored(people, tmp_path / "a.jsonl", "documents", {"text": "a"})
    with pytest.raises(AnnotateError, match="holds documents"):
        store_text_set(
            workspace=people.workspace, name="documents", kind="labelled",
            documents=[Document("", t, {"label": t}) for t in "ab"],
        )  # fmt: skip
