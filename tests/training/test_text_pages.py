"""The pages of text sets: bringing texts in, and what a set holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tests.people import People
from training.models import TextSet

pytestmark = pytest.mark.django_db


@pytest.fixture
def rita(people: People, client: Client) -> Client:
    client.force_login(people.rita)
    return client


def sent(client: Client, rows: list[Any], *, kind: str, name: str = "a.jsonl", **more: Any) -> Any:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    form = {"file": SimpleUploadedFile(name, data), "name": "mine", "kind": kind, **more}
    return client.post("/texts/", form)


def test_texts_come_in_and_are_shown_as_text(
    rita: Client, django_assert_max_num_queries: Any
) -> None:
    rows = [
        {"text": f"<script>alert({n})</script> **now**", "label": "spam" if n % 2 else "ham"}
        for n in range(10)
    ]
    page = sent(rita, rows, kind="labelled", licence="CC-BY-4.0", held_out_percent=40)
    assert page.status_code == 200
    made = TextSet.objects.get()
    assert (made.n_train, made.n_held_out, made.licence) == (6, 4, "CC-BY-4.0")
    with django_assert_max_num_queries(15):
        shown = rita.get(f"/texts/{made.pk}/").content.decode()
    assert "&lt;script&gt;alert(3)&lt;/script&gt; **now**" in shown
    assert "<script>alert" not in shown
    for words in ("CC-BY-4.0", "Latin 10", "held out", "None yet.", "?label=spam#texts"):
        assert words in shown, words
    assert rita.get(f"/texts/{made.pk}/?label=spam").context["page"].paginator.count == 5
    assert rita.get(f"/texts/{made.pk}/?show=held_out").context["page"].paginator.count == 4


def test_a_wrong_file_is_named_with_its_lines(rita: Client) -> None:
    page = sent(rita, [{"text": "a", "label": "x"}, {"text": "b"}], kind="labelled")
    assert page.status_code == 422
    assert "label is missing; every labelled text needs one" in page.content.decode()
    one = sent(rita, [{"text": "a", "label": "x"}], kind="labelled").content.decode()
    assert "there is nothing to tell apart" in one
    file = SimpleUploadedFile("latin.txt", "café".encode("latin-1"))
    page = rita.post("/texts/", {"file": file, "name": "mine", "kind": "documents"})
    assert "latin.txt, line 1: not UTF-8 text" in page.content.decode()
    assert not TextSet.objects.exists()
