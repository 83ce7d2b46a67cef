"""A project of labels over the API: made, filled, judged, measured, frozen, read."""

from __future__ import annotations

import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from tests.api.world import Caller, caller
from tests.people import People


def file(*rows: object) -> SimpleUploadedFile:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return SimpleUploadedFile("texts.jsonl", text.encode())


@pytest.fixture
def rita(people: People) -> Caller:
    return caller(people.rita, people.workspace)


def made(rita: Caller, **fields: object) -> dict[str, object]:
    labels = [{"name": "ham"}, {"name": "spam", "definition": "advertising", "key": "2"}]
    body = {"slug": "spam", "name": "Spam", "kind": "labels", "labels": labels, **fields}
    reply = rita.post("/projects", body)
    assert reply.status_code == 201, reply.content
    return reply.json()


def test_the_whole_path(rita: Caller, people: People) -> None:
    project = made(rita)
    assert project["kind"] == "labels"
    assert project["labels"] == [
        {"name": "ham", "definition": "", "key": "1"},
        {"name": "spam", "definition": "advertising", "key": "2"},
    ]
    rows = [{"text": f"text {n}", "label": "spam" if n % 3 == 0 else "ham"} for n in range(15)]
    report = rita.upload("/projects/spam/texts", file=file(*rows))
    assert report.status_code == 201, report.content
    assert (report.json()["texts_new"], report.json()["known_labels"]) == (15, 15)
    bob = caller(people.bob, people.workspace)
    served = bob.post("/projects/spam/next").json()
    assert served["answers"] == ["ham", "spam"]
    assert (served["left"], served["right"], served["response"]) == (None, None, None)
    assert "known" not in json.dumps(served)
    for number in range(15):
        truth = "spam" if int(served["prompt"][0]["content"].split()[1]) % 3 == 0 else "ham"
        answer = {"answer": truth, "idempotency_key": str(number)}
        reply = bob.post(f"/assignments/{served['id']}/judgment", answer)
        assert reply.status_code == 201, reply.content
        assert reply.json()["judgment"]["answer"] == truth
        served = reply.json()["next"]
    assert served is None
    found = rita.get("/projects/spam/labels").json()
    assert (found["known"]["right"], found["known"]["n"]) == (15, 15)
    assert [(row["name"], row["judgments"]) for row in found["labels"]] == [
        ("ham", 10),
        ("spam", 5),
    ]
    snapshot = rita.post("/projects/spam/snapshots", {"test_fraction": 0.3})
    assert snapshot.status_code == 201, snapshot.content
    reply = rita.get(f"/snapshots/{snapshot.json()['id']}/rows", split="train")
    lines = b"".join(reply.streaming_content).decode().splitlines()
    assert len(lines) == snapshot.json()["n_train"]
    assert {json.loads(line)["label"] for line in lines} == {"ham", "spam"}
    assert rita.get(f"/snapshots/{snapshot.json()['id']}/preflight").status_code == 200


def test_what_does_not_fit_is_a_problem(rita: Caller, people: People) -> None:
    body = {"slug": "x", "name": "X", "kind": "labels"}
    assert rita.post("/projects", body).status_code == 422
    assert rita.post("/projects", {**body, "labels": [{"name": "one"}]}).status_code == 422
    assert rita.post("/projects", {**body, "kind": "ratings"}).status_code in (400, 422)
    made(rita)
    pairs = file({"prompt": "Q?", "chosen": "a", "rejected": "b"})
    reply = rita.upload("/projects/spam/imports", file=pairs)
    assert reply.status_code == 409
    assert "holds single texts only" in reply.json()["detail"]
    reply = rita.upload("/projects/spam/texts", file=file({"text": "x", "label": "egg"}))
    assert reply.status_code == 422
    assert rita.get("/projects/spam/progress").json()["comparisons"] == 0


def test_another_list_is_the_next_version(rita: Caller) -> None:
    made(rita)
    labels = [{"name": "ham"}, {"name": "spam"}, {"name": "unsure"}]
    changed = rita.send("PATCH", "/projects/spam", {"labels": labels})
    assert changed.status_code == 200, changed.content
    assert changed.json()["guideline_version"] == 2
    assert [label["key"] for label in changed.json()["labels"]] == ["1", "2", "3"]
