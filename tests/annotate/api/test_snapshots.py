from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from annotate.models import Snapshot
from annotate.services.freezing import freeze_snapshot
from tests.api.world import World, caller
from tests.factories import make_project
from tests.people import People


def test_freezing_makes_the_next_snapshot(world: World) -> None:
    made = world.rita.post("/projects/helpful/snapshots", {"test_fraction": 0.5})
    assert made.status_code == 201
    found = made.json()
    assert (found["number"], found["project"]) == (2, "helpful")
    assert found["n_train"] + found["n_test"] == 12
    assert found["rule"]["test_fraction"] == 0.5
    assert world.rita.get(f"/snapshots/{found['id']}").json() == found
    assert Snapshot.objects.get(pk=found["id"]).created_by == world.people.rita


def test_an_empty_snapshot_is_refused(people: People) -> None:
    make_project(people.workspace)
    rita = caller(people.rita, people.workspace)
    reply = rita.post("/projects/helpful/snapshots")
    assert reply.status_code == 422
    assert reply.json()["type"] == "urn:annotate-and-align:nothing-to-freeze"


@pytest.mark.parametrize("fraction", [0, 1, -1, "nan", "x", 7])
def test_an_impossible_fraction_is_refused(fraction: object, world: World) -> None:
    reply = world.rita.post("/projects/helpful/snapshots", {"test_fraction": fraction})
    assert reply.status_code == 422
    assert Snapshot.objects.count() == 1


def test_the_rows_hash_to_the_snapshot(world: World) -> None:
    reply = world.rita.get(f"/snapshots/{world.snapshot.pk}/rows")
    assert reply["Content-Type"] == "application/x-ndjson"
    body = b"".join(reply.streaming_content)
    assert hashlib.sha256(body).hexdigest() == world.snapshot.sha256
    rows = [json.loads(line) for line in body.decode().splitlines()]
    assert set(rows[0]) >= {"prompt", "chosen", "rejected", "probability"}
    test = world.rita.get(f"/snapshots/{world.snapshot.pk}/rows", split="test", format="jsonl")
    assert "-test.jsonl" in test["Content-Disposition"]
    assert b"".join(test.streaming_content).count(b"\n") == world.snapshot.n_test


def test_unknown_splits_and_formats_are_refused(world: World) -> None:
    for query in ({"split": "dev"}, {"format": "csv"}):
        assert world.rita.get(f"/snapshots/{world.snapshot.pk}/rows", **query).status_code == 422


def test_a_list_costs_the_same_queries_however_long(
    world: World, django_assert_num_queries: Any
) -> None:
    rita = world.rita
    rita.get("/projects/helpful/snapshots")
    for wanted in (1, 5):
        for _ in range(Snapshot.objects.count(), wanted):
            freeze_snapshot(project=world.project, test_fraction=0.4)
        with django_assert_num_queries(4):  # token with membership, project, count, page
            listed = rita.get("/projects/helpful/snapshots").json()
    assert [row["number"] for row in listed["results"]] == [5, 4, 3, 2, 1]
