"""Jobs and queues through the API: the same words and the same rules as the pages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.api.world import World
from tests.training.rows import make_attempt, make_checkpoint
from tests.training.test_smaller import engine_config
from training.models import Job, Run
from training.services import queueing


@pytest.fixture
def job(world: World) -> Job:
    return world.run.job


def failed(job: Job, reason: str) -> None:
    claim = queueing.claim(job_id=job.pk)
    assert claim is not None
    queueing.finish(claim=claim, to="failed", reason=reason, detail="it <broke>")
    assert job.round is not None
    type(job.round).objects.filter(pk=job.round.pk).update(state="failed")


def test_jobs_are_listed_and_filtered(world: World, job: Job) -> None:
    push = Job.objects.create(
        workspace=world.people.workspace, kind="push_snapshot", queue="default", state="succeeded",
        outcome={"url": "u", "repo": "r", "commit": "c"}, payload={"push": "inner"},
    )  # fmt: skip
    found = world.rita.get("/jobs").json()
    assert [row["id"] for row in found["results"]] == [push.pk, job.pk]
    assert found["results"][0]["outcome"]["commit"] == "c"
    assert "inner" not in str(found)
    for query, expected in (
        ({"state": "queued"}, [job.pk]), ({"queue": "default"}, [push.pk]),
        ({"kind": "run"}, [job.pk]), ({"kind": "run", "state": "failed"}, []),
    ):  # fmt: skip
        rows = world.rita.get("/jobs", **query).json()["results"]
        assert [row["id"] for row in rows] == expected, query
    assert world.rita.get("/jobs", limit=1).json()["next"] is not None
    for wrong in ({"state": "odd"}, {"colour": "red"}):
        assert world.rita.get("/jobs", **wrong).status_code == 422


def test_a_waiting_job_says_what_it_waits_for(world: World, job: Job) -> None:
    found = world.rita.get(f"/jobs/{job.pk}").json()
    assert found["waits"] == ["It is the next in its queue.", "A worker takes it within seconds."]
    assert (found["may_cancel"], found["may_retry"], found["resume_step"]) == (True, False, None)
    assert (found["meaning"], found["proposal"], found["attempt_history"]) == ("", None, [])
    assert found["run"] == world.run.pk


def test_a_failed_job_comes_with_its_history_and_what_to_do(world: World, job: Job) -> None:
    failed(job, "oom")
    Run.objects.filter(pk=world.run.pk).update(config=engine_config("reward"))
    attempt = job.attempt_rows.get()
    make_checkpoint(world.run, attempt, 4)
    found = world.rita.get(f"/jobs/{job.pk}").json()
    assert found["meaning"] == "It ran out of memory."
    assert found["todo"].startswith("Launch it again with settings that need less")
    assert (found["may_retry"], found["resume_step"]) == (True, 4)
    assert found["proposal"]["config"] == {
        "reward": {"gradient_checkpointing": True, "row_budget": 256}
    }
    assert [row["outcome"] for row in found["attempt_history"]] == ["failed"]
    assert found["attempt_history"][0]["detail"] == "it <broke>"
    (checkpoint,) = found["checkpoints"]
    assert (checkpoint["step"], checkpoint["attempt"], checkpoint["there"]) == (4, 1, True)


def test_a_job_is_cancelled_and_tried_again(world: World, job: Job) -> None:
    cancelled = world.rita.post(f"/jobs/{job.pk}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert world.rita.get(f"/rounds/{world.round.pk}").json()["state"] == "cancelled"
    again = world.rita.post(f"/jobs/{job.pk}/cancel")
    assert (again.status_code, again.json()["type"]) == (
        409,
        "urn:annotate-and-align:illegal-transition",
    )
    retried = world.rita.post(f"/jobs/{job.pk}/retry")
    assert (retried.status_code, retried.json()["state"]) == (200, "queued")
    assert world.rita.post(f"/jobs/{job.pk}/retry").status_code == 409
    assert world.rita.get(f"/rounds/{world.round.pk}").json()["state"] == "training_reward"


def test_queues_say_depth_and_lag_and_who_was_seen(world: World, job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(created_at=timezone.now() - timedelta(minutes=5))
    found = queues(world)
    assert (found["training"]["queued"], found["training"]["running"]) == (1, 0)
    assert "no worker takes them" in found["training"]["stuck"]
    assert found["default"]["queued"] == 0
    make_attempt(job, worker="box:1")
    reply = world.rita.get("/queues").json()
    assert [(w["name"], w["busy"], w["job"]) for w in reply["workers"]] == [("box:1", False, None)]
    assert queues(world)["training"]["waits"] == 1


def queues(world: World) -> dict[str, Any]:
    return {row["queue"]: row for row in world.rita.get("/queues").json()["results"]}
