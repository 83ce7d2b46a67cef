from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from annotate.models import Comparison
from tests.api.world import caller
from tests.factories import make_project
from tests.people import People

ROWS = [{"prompt": f"{n}?", "chosen": "yes", "rejected": "no"} for n in range(3)]


def file_of(rows: list[Any], name: str = "pairs.jsonl") -> SimpleUploadedFile:
    lines = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    data = lines.encode()
    return SimpleUploadedFile(name, gzip.compress(data) if name.endswith(".gz") else data)


@pytest.mark.parametrize(
    "name", ["pairs.jsonl", "pairs.jsonl.gz", "no ending", "../../etc/x.jsonl"]
)
def test_a_file_is_imported_once(name: str, people: People) -> None:
    make_project(people.workspace)
    rita = caller(people.rita, people.workspace)
    place = "/projects/helpful/imports"
    first = rita.upload(place, file=file_of(ROWS, name))
    assert first.status_code == 201, first.content
    assert first.json() == {
        "comparisons_new": 3, "comparisons_seen": 0, "judgments_new": 3, "judgments_seen": 0,
        "bad_rows": [],
    }  # fmt: skip
    again = rita.upload(place, file=file_of(ROWS, name), format="trl")
    assert (again.json()["comparisons_new"], again.json()["comparisons_seen"]) == (0, 3)


def test_a_bad_row_refuses_the_file_with_its_line(people: People) -> None:
    make_project(people.workspace)
    rita = caller(people.rita, people.workspace)
    rows = [*ROWS, "{broken", {**ROWS[0], "chosen": 7}]
    reply = rita.upload("/projects/helpful/imports", file=file_of(rows))
    assert reply.status_code == 422
    assert reply.json()["type"] == "urn:annotate-and-align:import-refused"
    assert [row["line"] for row in reply.json()["bad_rows"]] == [4, 5]
    assert reply.json()["detail"].startswith("pairs.jsonl: 2 rows")
    assert "skip_bad=true" in reply.json()["detail"]
    assert not Comparison.objects.exists()
    reply = rita.upload("/projects/helpful/imports", file=file_of(rows), skip_bad="true")
    assert reply.status_code == 201
    assert reply.json()["comparisons_new"] == 3
    assert [row["line"] for row in reply.json()["bad_rows"]] == [4, 5]


@pytest.mark.parametrize(
    ("name", "data"),
    [("x.jsonl", b"\x80\x81"), ("x.jsonl.gz", b"no gzip"), ("x.parquet", b"PAR?"),
     ("x.jsonl", b'{"a": 1}\n')],
)  # fmt: skip
def test_a_refusal_names_the_upload_and_not_our_folder(
    name: str, data: bytes, people: People
) -> None:
    make_project(people.workspace)
    rita = caller(people.rita, people.workspace)
    reply = rita.upload("/projects/helpful/imports", file=SimpleUploadedFile(name, data))
    assert reply.status_code == 422
    assert name in reply.json()["detail"].lower()
    assert "tmp" not in reply.json()["detail"]
    assert "--" not in reply.json()["detail"]


def test_the_form_is_checked(people: People) -> None:
    make_project(people.workspace)
    rita = caller(people.rita, people.workspace)
    for form, field in (
        ({}, "file"),
        ({"file": "text"}, "file"),
        ({"file": SimpleUploadedFile("e.jsonl", b"")}, "file"),
        ({"file": file_of(ROWS), "format": "csv"}, "format"),
        ({"file": file_of(ROWS), "skip_bad": "perhaps"}, "skip_bad"),
        ({"file": file_of(ROWS), "skipbad": "1"}, "skipbad"),
    ):
        reply = rita.upload("/projects/helpful/imports", **form)
        assert reply.status_code == 422, form
        assert reply.json()["errors"][0]["field"] == field


def test_a_broken_or_too_large_upload_is_refused(people: People, settings: Any) -> None:
    make_project(people.workspace)
    rita = caller(people.rita, people.workspace)
    address = "/api/v1/projects/helpful/imports"
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        reply = rita._client.generic("POST", address, b"--y", kind, headers=rita._headers)
        assert reply.status_code in (400, 422), kind
    too_long = {"CONTENT_LENGTH": str(settings.MAX_UPLOAD_BYTES + 1)}
    reply = rita._client.generic(
        "POST", address, b"", "multipart/form-data; boundary=x", headers=rita._headers, **too_long
    )
    assert reply.status_code == 413
    many = {f"f{n}": SimpleUploadedFile(f"{n}.jsonl", b"x") for n in range(150)}
    assert rita.upload("/projects/helpful/imports", **many).status_code == 400


def test_nothing_of_an_upload_stays_behind(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    make_project(people.workspace)
    rita = caller(people.rita, people.workspace)
    rita.upload("/projects/helpful/imports", file=file_of(ROWS))
    rita.upload("/projects/helpful/imports", file=file_of(["{broken"]))
    assert list(tmp_path.iterdir()) == []
