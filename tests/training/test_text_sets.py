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
from training.services.text_sets import Document, import_text_set, store_text_set

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
