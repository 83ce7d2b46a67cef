"""Comparisons and prompts from an uploaded file."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from annotate.models import Comparison, PromptSet
from tests.api.world import caller
from tests.factories import make_project
from tests.people import People

GOOD = b'{"prompt": "Q?", "chosen": "yes", "rejected": "no"}\n'


def send(client: Client, address: str, file: str, data: bytes, **more: str) -> Any:
    return client.post(address, {"file": SimpleUploadedFile(file, data), **more})


@pytest.fixture
def rita(people: People, client: Client) -> Client:
    make_project(people.workspace)
    client.force_login(people.rita)
    return client


@pytest.mark.parametrize("name", ["pairs.jsonl", "../../pairs.jsonl", "pairs.jsonl.gz"])
def test_it_imports_a_file_whatever_its_name(rita: Client, name: str) -> None:
    data = gzip.compress(GOOD) if name.endswith(".gz") else GOOD
    reply = send(rita, "/projects/helpful/import", name, data, format="auto")
    assert reply.status_code == 200
    assert "1 new comparison " in reply.content.decode()
    assert Comparison.objects.count() == 1


def test_bad_rows_are_listed_by_line_and_nothing_is_stored(rita: Client) -> None:
    data = GOOD + b"not json\n" + b'{"prompt": "Q?", "chosen": "same"}\n'
    reply = send(rita, "/projects/helpful/import", "pairs.jsonl", data, format="trl")
    page = reply.content.decode()
    assert reply.status_code == 422
    assert "2 rows of the file cannot be used" in page
    assert '<td class="n">2</td><td>not JSON' in page
    assert '<td class="n">3</td>' in page
    assert "upload-" not in page
    assert not Comparison.objects.exists()


def test_bad_rows_may_be_left_out(rita: Client) -> None:
    data = GOOD + b"not json\n"
    reply = send(
        rita, "/projects/helpful/import", "pairs.jsonl", data, format="auto", skip_bad="on"
    )
    assert "1 row left out" in reply.content.decode()
    assert Comparison.objects.count() == 1


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.jsonl", b"   \n"),
        ("odd.jsonl", b"\xff\xfe\x00"),
        ("broken.jsonl.gz", gzip.compress(GOOD, mtime=0)[:-9]),
        ("no.gz", b"plain"),
        ("x.parquet", b"PAR1 no"),
        ("unknown.jsonl", b'{"a": 1}\n'),
    ],
)
def test_what_is_no_such_file_is_refused_by_its_name(rita: Client, name: str, data: bytes) -> None:
    reply = send(rita, "/projects/helpful/import", name, data, format="auto")
    page = reply.content.decode()
    assert reply.status_code == 422
    assert "Nothing was imported" in page
    assert "/tmp" not in page  # noqa: S108 - the temporary folder is what must not show


def test_nothing_chosen_is_said(rita: Client) -> None:
    assert rita.post("/projects/helpful/import", {"format": "auto"}).status_code == 422


@pytest.mark.parametrize(
    "name", ["p.txt", "p.txt.gz", "\N{CJK UNIFIED IDEOGRAPH-20000}" * 90 + ".txt"]
)
def test_a_text_file_is_a_prompt_a_line_whatever_its_name(
    name: str, people: People, client: Client
) -> None:
    data = b"What is red?\nWhat is blue?\n"
    client.force_login(people.rita)
    packed = gzip.compress(data) if name.endswith(".gz") else data
    reply = send(client, "/prompts/", name, packed, name="plain", use="fresh")
    assert reply.status_code == 200
    rita = caller(people.rita, people.workspace)
    reply = rita.upload("/prompt-sets", file=SimpleUploadedFile(name, packed), name="plain")
    assert reply.json()["n_prompts"] == 2
    assert PromptSet.objects.count() == 1


def test_prompts_become_a_set_and_the_same_file_twice_is_one_version(
    people: People, client: Client
) -> None:
    client.force_login(people.rita)
    data = "".join(json.dumps({"prompt": f"{n}?"}) + "\n" for n in range(3)).encode()
    for _ in range(2):
        reply = send(client, "/prompts/", "p.jsonl", data, name="fresh", use="fresh")
        assert "fresh v1" in reply.content.decode()
    made = PromptSet.objects.get()
    assert made.entries.count() == 3
    assert "2?" in client.get(f"/prompts/{made.pk}/").content.decode()


def test_bad_prompts_are_listed_by_line(people: People, client: Client) -> None:
    client.force_login(people.rita)
    reply = send(client, "/prompts/", "p.jsonl", b'{"prompt": ""}\n', name="x", use="fresh")
    assert reply.status_code == 422
    assert "the prompt is empty" in reply.content.decode()
