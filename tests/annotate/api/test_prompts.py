from __future__ import annotations

from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile

from annotate.models import PromptSet
from tests.api.world import caller
from tests.people import People


def test_a_set_is_imported_versioned_and_listed(people: People) -> None:
    rita = caller(people.rita, people.workspace)
    one = SimpleUploadedFile("p.txt", b"Why?\nHow?\n")
    made = rita.upload("/prompt-sets", file=one, name="fresh")
    assert made.status_code == 201
    assert made.json() | {"name": "fresh", "version": 1, "use": "fresh", "n_prompts": 2} == (
        made.json()
    )
    one.seek(0)
    assert rita.upload("/prompt-sets", file=one, name="fresh").json() == made.json()
    more = SimpleUploadedFile("p.jsonl", b'{"prompt": "Who?"}\n')
    assert rita.upload("/prompt-sets", file=more, name="fresh").json()["version"] == 2
    assert rita.upload("/prompt-sets", file=one, name="a b").status_code == 422
    listed = rita.get("/prompt-sets", name="fresh", use="fresh").json()
    assert [row["version"] for row in listed["results"]] == [2, 1]
    assert rita.get("/prompt-sets", use="train").json()["count"] == 0


def test_a_refused_file_names_its_lines(people: People) -> None:
    rita = caller(people.rita, people.workspace)
    bad = SimpleUploadedFile("p.jsonl", b'{"prompt": "Who?"}\n{"prompt": 7}\n')
    reply = rita.upload("/prompt-sets", file=bad, name="fresh")
    assert reply.status_code == 422
    assert reply.json()["bad_rows"][0]["line"] == 2
    assert not PromptSet.objects.exists()


def test_a_list_costs_the_same_queries_however_long(
    people: People, django_assert_num_queries: Any
) -> None:
    rita = caller(people.rita, people.workspace)
    rita.get("/prompt-sets")
    for wanted in (1, 9):
        for number in range(PromptSet.objects.count(), wanted):
            PromptSet.objects.create(workspace=people.workspace, name=f"s{number}", use="fresh")
        with django_assert_num_queries(3):
            assert rita.get("/prompt-sets").json()["count"] == wanted
