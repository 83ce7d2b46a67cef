from __future__ import annotations

from typing import Any

import pytest
from django.conf import LazySettings

from tests.api.world import World
from training.models import Run


def make_event(run: Run, attempt: int, seq: int, **body: Any) -> None:
    run.events.create(attempt=attempt, seq=seq, kind="progress", at=run.created_at, body=body)


def test_a_run_says_where_it_stands(world: World, settings: LazySettings) -> None:
    make_event(world.run, 1, 1, step=2, total_steps=8)
    world.run.config["adapter"]["init_from"] = f"{settings.RUNS_DIR}/round-1/sft/adapter"
    world.run.save()
    found = world.rita.get(f"/runs/{world.run.pk}").json()
    assert (found["round"], found["stage"], found["state"]) == (
        world.round.pk, "reward", "queued",
    )  # fmt: skip
    assert (found["step"], found["total_steps"]) == (2, 8)
    assert found["config"]["method"] == "reward"
    assert found["config"]["adapter"]["init_from"] == "round-1/sft/adapter"
    assert found["result"] is None


def test_events_are_read_by_cursor_once_each(world: World) -> None:
    for attempt, seqs in ((1, range(1, 6)), (2, range(1, 4))):
        for seq in seqs:
            make_event(world.run, attempt, seq, step=seq)
    seen: list[tuple[int, int]] = []
    cursor, more = "0.0", True
    while more:
        reply = world.rita.get(f"/runs/{world.run.pk}/events", after=cursor, limit=3).json()
        seen += [(event["attempt"], event["seq"]) for event in reply["results"]]
        cursor, more = reply["next"], reply["more"]
    assert seen == [*((1, seq) for seq in range(1, 6)), *((2, seq) for seq in range(1, 4))]
    assert cursor == "2.3"
    waiting = world.rita.get(f"/runs/{world.run.pk}/events", after=cursor).json()
    assert waiting == {"results": [], "next": "2.3", "more": False}


@pytest.mark.parametrize(
    "query",
    [{"after": "1"}, {"after": "1.x"}, {"after": "9" * 30 + ".1"},
     {"after": "١.١"}, {"limit": 0}, {"limit": 1001}, {"offset": 3}],
)  # fmt: skip
def test_a_cursor_that_is_none_is_refused(query: dict[str, Any], world: World) -> None:
    reply = world.rita.get(f"/runs/{world.run.pk}/events", **query)
    assert reply.status_code == 422, reply.content
    assert reply.json()["errors"][0]["field"] == next(iter(query))


def test_metrics_come_as_series(world: World, django_assert_num_queries: Any) -> None:
    for name, step, value in (("loss/train", 2, 0.5), ("loss/train", 1, 0.7), ("other", 1, 1.0)):
        world.run.metrics.create(name=name, step=step, value=value, attempt=1)
    rita, place = world.rita, f"/runs/{world.run.pk}/metrics"
    rita.get(place)
    with django_assert_num_queries(3):
        found = rita.get(place).json()["results"]
    assert [series["name"] for series in found] == ["loss/train", "other"]
    assert found[0]["points"] == [{"step": 1, "value": 0.7}, {"step": 2, "value": 0.5}]
    assert found[0]["meaning"]
    one = rita.get(place, name="other").json()["results"]
    assert [series["name"] for series in one] == ["other"]


def test_a_value_that_is_no_number_is_null(world: World) -> None:
    world.run.metrics.create(name="loss/train", step=1, value=float("inf"), attempt=1)
    found = world.rita.get(f"/runs/{world.run.pk}/metrics").json()["results"]
    assert found[0]["points"] == [{"step": 1, "value": None}]


def test_a_run_is_launched_once_under_its_key(world: World) -> None:
    asked = {
        "method": "pretrain", "version": world.base.pk, "text_set": world.text_set.pk,
        "config": {"optim": {"max_steps": 2}}, "idempotency_key": "once",
    }  # fmt: skip
    first, again = (world.rita.post("/runs", asked) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200), first.content
    made = first.json()
    assert made["id"] == again.json()["id"]
    assert (made["text_set"], made["state"]) == (world.text_set.pk, "queued")
    other = world.rita.post("/runs", {**asked, "tuning": "qlora"})
    assert (other.status_code, other.json()["type"].rpartition(":")[2]) == (409, "key-reused")
    listed = world.rita.get("/runs", method="pretrain", state="queued").json()
    assert [each["id"] for each in listed["results"]] == [made["id"]]
    assert world.rita.get(f"/text-sets/{world.text_set.pk}").json()["runs"] == [made["id"]]


def test_a_launch_that_cannot_be_says_what_to_change(world: World) -> None:
    asked = {"method": "pretrain", "version": world.base.pk}
    reply = world.rita.post("/runs", asked)
    assert (reply.status_code, "needs a text set of documents" in reply.json()["detail"]) == (
        422, True,
    )  # fmt: skip
    reply = world.rita.post("/runs", {**asked, "method": "dpo"})
    assert reply.json()["errors"][0]["field"] == "method"
    reply = world.rita.post("/runs", {**asked, "text_set": 10**6})
    assert reply.json()["errors"][0]["field"] == "text_set"
