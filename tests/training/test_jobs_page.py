"""The queue as a list, and what a person may do to a job."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.test import Client
from django.utils import timezone

from rlhf_platform.accounts.models import Workspace
from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_attempt, make_round, make_run
from training.models import Job, JobEvent, Round
from training.selectors.queues import QueueState, queue_states


def queue_of(workspace: Workspace, name: str) -> QueueState:
    return next(q for q in queue_states(workspace=workspace) if q.name == name)


def state_of(workspace: Workspace, name: str) -> str:
    return queue_of(workspace, name).stuck


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
    # One for each queue: how long its jobs waited.
    with django_assert_max_num_queries(10 + len(Job.Queue)):
        page = client.get("/jobs/").content.decode()
    assert page.count('data-label="Attempts"') == 4
    assert 'It ran out of memory. <span class="soft">&lt;b&gt;killed' in page
    page = client.get("/jobs/?state=failed").content.decode()
    assert page.count('data-label="Attempts"') == 1
    assert "No job is lost" in client.get("/jobs/?state=lost").content.decode()


def test_cancelling_a_job_stops_its_round(people: People, client: Client) -> None:
    round = make_round(make_project(people.workspace))
    run = make_run(round, state="queued")
    client.force_login(people.rita)
    page = client.post(f"/jobs/{run.job.pk}/cancel", follow=True).content.decode()
    assert f"Job {run.job.pk} is cancelled." in page
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


def test_a_queue_tells_its_usual_wait_and_when_it_was_last_taken(people: People) -> None:
    round = make_round(make_project(people.workspace))
    assert queue_of(people.workspace, "Training").usual_wait_s is None
    now = timezone.now()
    for number, waited in enumerate((2, 4, 60)):
        job = make_run(round, stage=("reward", "evaluate", "policy")[number], state="lost").job
        Job.objects.filter(pk=job.pk).update(created_at=now - timedelta(minutes=9))
        begun = now - timedelta(minutes=9) + timedelta(seconds=waited)
        make_attempt(job, 1, started_at=begun, ended_at=now, outcome="lost")
    # A second attempt waited for something else: it is no figure of how long a launch waits.
    make_attempt(job, 2, started_at=now, ended_at=None)
    found = queue_of(people.workspace, "Training")
    assert (found.usual_wait_s, found.waits, found.last_taken) == (4.0, 3, now)
    assert queue_of(people.elsewhere, "Training").waits == 0


def test_workers_are_seen_by_what_they_hold(people: People, client: Client) -> None:
    round = make_round(make_project(people.workspace))
    ours = make_run(round, state="running").job
    theirs = make_run(make_round(make_project(people.elsewhere)), state="running").job
    silent = make_run(round, stage="reward", state="running").job
    Job.objects.filter(pk=silent.pk).update(lease_until=timezone.now() - timedelta(minutes=2))
    for number, (job, name) in enumerate(((ours, "a:1"), (theirs, "b:2"), (silent, "c:3"))):
        make_attempt(job, 1, worker=name, ended_at=None)
        ended = timezone.now() - timedelta(minutes=30 if number else 90)
        make_attempt(job, 2, worker=f"idle:{number}", ended_at=ended, outcome="lost")
    client.force_login(people.rita)
    page = client.get("/jobs/").content.decode()
    seen = page[page.index("Workers seen") : page.index("A worker is seen by")]
    assert f'at work</span> <code class="breaks">a:1</code> on <a href="/jobs/{ours.pk}/">' in seen
    assert "b:2</code> on a job of another workspace" in seen
    assert f"/jobs/{theirs.pk}/" not in seen
    assert 'silent</span> <code class="breaks">c:3' in seen
    assert "idle:0" not in seen  # more than an hour ago
    assert 'idle or gone</span> <code class="breaks">idle:1' in seen
