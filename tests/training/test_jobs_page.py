"""The queue as a list, and what a person may do to a job."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.test import Client
from django.utils import timezone

from rlhf_platform.accounts.models import Workspace
from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_round, make_run
from training.models import Job, JobEvent, Round
from training.selectors.queues import queue_states


def state_of(workspace: Workspace, name: str) -> str:
    return next(q.stuck for q in queue_states(workspace=workspace) if q.name == name)


def age(job: Job, seconds: int) -> None:
    Job.objects.filter(pk=job.pk).update(created_at=timezone.now() - timedelta(seconds=seconds))


def test_the_list_filters_by_state_at_a_fixed_price(
    people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    round = make_round(make_project(people.workspace))
    for stage in ("reward", "evaluate", "policy"):
        make_run(round, stage=stage, state="succeeded")
    make_run(round, state="failed", reason="oom", detail="<b>killed</b>")
    client.force_login(people.rita)
    with django_assert_max_num_queries(8):
        page = client.get("/jobs/").content.decode()
    assert page.count('data-label="Attempts"') == 4
    assert "oom: &lt;b&gt;killed" in page
    page = client.get("/jobs/?state=failed").content.decode()
    assert page.count('data-label="Attempts"') == 1
    assert "No job is lost" in client.get("/jobs/?state=lost").content.decode()


def test_cancelling_a_job_stops_its_round(people: People, client: Client) -> None:
    round = make_round(make_project(people.workspace))
    run = make_run(round, state="queued")
    client.force_login(people.rita)
    client.post(f"/jobs/{run.job.pk}/cancel")
    round.refresh_from_db()
    assert (Job.objects.get().state, round.state) == (Job.State.CANCELLED, Round.State.CANCELLED)
    page = client.post(f"/jobs/{run.job.pk}/cancel", follow=True).content.decode()
    assert "has ended already" in page


def test_retrying_a_job_takes_its_round_along(people: People, client: Client) -> None:
    round = make_round(make_project(people.workspace), state="failed")
    run = make_run(round, state="failed")
    client.force_login(people.rita)
    client.post(f"/jobs/{run.job.pk}/retry")
    round.refresh_from_db()
    assert (Job.objects.get().state, round.state) == (
        Job.State.QUEUED,
        Round.State.TRAINING_POLICY,
    )


def test_a_job_its_round_has_left_behind_is_not_retried(people: People, client: Client) -> None:
    round = make_round(make_project(people.workspace))
    old = make_run(round, stage="reward", state="failed")
    make_run(round, state="running")
    client.force_login(people.rita)
    page = client.post(f"/jobs/{old.job.pk}/retry", follow=True).content.decode()
    assert "is not the stage at which its round stopped" in page
    assert Job.objects.get(pk=old.job.pk).state == Job.State.FAILED


def test_a_job_that_waits_with_nobody_at_work_is_stuck(people: People) -> None:
    round = make_round(make_project(people.workspace))
    waiting = make_run(round, state="queued").job
    assert state_of(people.workspace, "Training") == ""  # only just queued
    age(waiting, 60)
    assert "no worker takes them" in state_of(people.workspace, "Training")
    assert state_of(people.workspace, "Sampling") == ""
    # One device: a running sampling, even of another workspace, is what training waits for.
    theirs = make_run(make_round(make_project(people.elsewhere)), state="running")
    Job.objects.filter(run=theirs).update(queue=Job.Queue.SAMPLING)
    assert state_of(people.workspace, "Training") == ""


def test_a_retried_job_waits_from_its_return(people: People) -> None:
    job = make_run(make_round(make_project(people.workspace)), state="queued").job
    age(job, 600)
    JobEvent.objects.create(job=job, from_state="failed", to_state="queued", attempt=1)
    assert state_of(people.workspace, "Training") == ""


def test_a_lease_that_ran_out_is_stuck(people: People) -> None:
    run = make_run(make_round(make_project(people.workspace)), state="running")
    Job.objects.filter(run=run).update(lease_until=timezone.now() - timedelta(seconds=5))
    assert "stopped giving signs of life" in state_of(people.workspace, "Training")
