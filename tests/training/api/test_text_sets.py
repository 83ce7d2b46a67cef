"""Text sets in the API."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

from tests.api.world import World


def file(*rows: Any, name: str = "texts.jsonl") -> BytesIO:
    found = BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode())
    found.name = name
    return found


def test_a_set_comes_in_once_and_is_listed(world: World) -> None:
    rows = [{"question": f"{n}?", "answers": [str(n)]} for n in range(4)]
    asked = {"name": "quiz", "kind": "questions", "source": "ours", "licence": "MIT"}
    made = world.rita.upload("/text-sets", file=file(*rows), **asked)
    assert made.status_code == 201, made.content
    found = made.json()
    assert (found["n_train"], found["n_held_out"]) == (2, 2)
    assert (found["figures"]["task"], found["licence"]) == ("text", "MIT")
    assert world.rita.upload("/text-sets", file=file(*rows), **asked).json()["id"] == found["id"]
    listed = world.rita.get("/text-sets", kind="questions").json()
    assert [each["id"] for each in listed["results"]] == [found["id"]]
    assert world.rita.get(f"/text-sets/{found['id']}").json()["runs"] == []


def test_bad_rows_are_listed_by_line(world: World) -> None:
    rows = [{"text": "a"}, {"text": ""}]
    reply = world.rita.upload("/text-sets", file=file(*rows), name="mine")
    assert reply.status_code == 422
    assert reply.json()["bad_rows"] == [{"line": 2, "reason": "text is empty"}]
    assert world.rita.get("/text-sets", name="mine").json()["count"] == 0
