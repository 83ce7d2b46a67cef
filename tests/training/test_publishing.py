"""Pushing a real snapshot: the button, the job, the command, and reading it back from the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import Settings

from annotate.errors import HubRefused
from annotate.export.hub import Patience
from annotate.export.writers import snapshot_lines
from annotate.models import Snapshot
from tests.annotate.export.snapshots import real_snapshot
from tests.hub_server import TOKEN, Hub
from tests.people import People
from training.errors import LostLease
from training.models import Job
from training.services import queueing
from training.services.publishing import execute_push, queue_model_push, queue_snapshot_push
from training.services.versions import base_version
from training.services.working import Worker

#: A push's lease is kept alive beside it, which an outer test transaction would not allow.
pytestmark = pytest.mark.django_db(transaction=True)
QUICK = Patience(base_s=0.01)


@pytest.fixture
def snapshot(people: People) -> Snapshot:
    return real_snapshot(people.workspace, "hh-helpful")


def work_off(job: Job) -> Job:
    """What the worker's default loop does with one job."""
    claim = queueing.claim(job_id=job.pk)
    assert claim is not None
    execute_push(claim=claim, stopping=threading.Event(), patience=QUICK)
    job.refresh_from_db()
    return job


READ_BACK = """
import json, sys
from datasets import load_dataset
loaded = load_dataset("lab/helpful")
print(json.dumps({split: loaded[split].to_list() for split in loaded}))
"""


def read_back(hub: Hub, program: str, cache: Path) -> str:
    """Run a program of somebody else's: a fresh process that knows the endpoint and the token."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cache),
        "HF_HOME": str(cache / "hf"),
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_load_dataset_reads_back_what_the_command_pushed(
    hub: Hub, snapshot: Snapshot, tmp_path: Path, format: str
) -> None:
    out = StringIO()
    call_command(
        "push_snapshot", str(snapshot.pk), "--repo", "lab/helpful", "--format", format, stdout=out
    )
    repo = hub.repos["dataset", "lab/helpful"]
    assert f"pushed to {hub.endpoint}/datasets/lab/helpful (commit {repo.commits[-1].id})" in (
        out.getvalue()
    )
    assert repo.private
    assert len(repo.pushes) == 1
    assert 'load_dataset("lab/helpful")' in repo.files["README.md"].decode()
    loaded = json.loads(read_back(hub, READ_BACK, tmp_path).splitlines()[-1])
    for split in ("train", "test"):
        lines = snapshot_lines(snapshot=snapshot, split=split)
        assert loaded[split] == [json.loads(line) for line in lines]


def test_the_button_queues_a_private_push_and_the_page_shows_its_end(
    hub: Hub, snapshot: Snapshot, people: People, client: Client
) -> None:
    client.force_login(people.rita)
    page = f"/projects/{snapshot.project.slug}/"
    assert f'action="/snapshots/{snapshot.pk}/push"' in client.get(page).content.decode()
    reply = client.post(f"/snapshots/{snapshot.pk}/push", {"repo": "lab/helpful"}, follow=True)
    assert "The push to lab/helpful (private) is queued" in reply.content.decode()
    job = Job.objects.get(kind=Job.Kind.PUSH_SNAPSHOT)
    assert (job.state, job.queue, job.workspace) == ("queued", "default", people.workspace)
    job = work_off(job)
    repo = hub.repos["dataset", "lab/helpful"]
    assert job.state == Job.State.SUCCEEDED
    assert job.outcome == {
        "repo": "lab/helpful",
        "url": f"{hub.endpoint}/datasets/lab/helpful",
        "commit": repo.commits[-1].id,
    }
    shown = client.get(page).content.decode()
    assert f'href="{hub.endpoint}/datasets/lab/helpful"' in shown
    assert repo.commits[-1].id[:12] in shown


def test_a_page_of_many_snapshots_asks_for_their_pushes_once(
    snapshot: Snapshot, people: People, client: Client
) -> None:
    for number in range(2, 6):
        snapshot.pk, snapshot.number = None, number
        snapshot.save()
    client.force_login(people.rita)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        client.get(f"/projects/{snapshot.project.slug}/")
    asked = [query for query in queries if '"training_job"' in query["sql"]]
    assert len(asked) == 1


def test_outsiders_and_annotators_cannot_push(
    snapshot: Snapshot, people: People, client: Client
) -> None:
    base = base_version(workspace=people.workspace)
    for url in (f"/snapshots/{snapshot.pk}/push", f"/models/{base.pk}/push"):
        for user, status in ((people.charlie, 404), (people.bob, 403)):
            client.force_login(user)
            assert client.post(url, {"repo": "lab/x"}).status_code == status
        client.logout()
        assert client.post(url, {"repo": "lab/x"}).status_code == 302
        client.force_login(people.rita)
        assert client.get(url).status_code == 405
    assert not Job.objects.exists()


def test_a_name_that_cannot_be_is_said_at_once(
    snapshot: Snapshot, people: People, client: Client
) -> None:
    client.force_login(people.rita)
    reply = client.post(f"/snapshots/{snapshot.pk}/push", {"repo": "<b>x"}, follow=True)
    shown = reply.content.decode()
    assert "is not a repository name; write owner/name" in shown
    assert "<b>x" not in shown
    assert not Job.objects.exists()


def test_pressing_twice_queues_once(snapshot: Snapshot) -> None:
    first = queue_snapshot_push(snapshot=snapshot, repo="lab/helpful")
    assert queue_snapshot_push(snapshot=snapshot, repo="lab/helpful") == first
    assert queue_snapshot_push(snapshot=snapshot, repo="lab/helpful", public=True) != first


def test_a_base_has_nothing_to_push(people: People, client: Client) -> None:
    base = base_version(workspace=people.workspace)
    with pytest.raises(CommandError, match="is a base"):
        call_command("push_model", str(base.pk), "--repo", "lab/model")
    with pytest.raises(HubRefused, match="is a base, not something trained here"):
        queue_model_push(version=base, repo="lab/model")
    client.force_login(people.rita)
    assert "Push to the Hub" not in client.get(f"/models/{base.pk}/").content.decode()


def test_a_refusal_fails_the_job_with_its_reason(
    hub: Hub, snapshot: Snapshot, people: People, client: Client
) -> None:
    hub.seed("dataset", "lab/helpful", private=False)
    job = work_off(queue_snapshot_push(snapshot=snapshot, repo="lab/helpful"))
    assert (job.state, job.reason, job.attempts) == (Job.State.FAILED, "refused", 1)
    client.force_login(people.rita)
    shown = client.get(f"/projects/{snapshot.project.slug}/").content.decode()
    assert "lab/helpful is public and pushes are private" in shown


def test_a_hub_that_stays_ill_fails_the_job_after_eight_tries(hub: Hub, snapshot: Snapshot) -> None:
    hub.fail("POST .*/commit/", 503, times=100)
    job = work_off(queue_snapshot_push(snapshot=snapshot, repo="lab/helpful"))
    assert (job.state, job.reason) == (Job.State.FAILED, "network")
    assert "tried 8 times" in job.detail
    assert hub.count("POST .*/commit/") == 8


def test_a_fault_of_ours_fails_the_job_and_spares_the_worker(hub: Hub, snapshot: Snapshot) -> None:
    job = queue_snapshot_push(snapshot=snapshot, repo="lab/helpful")
    Job.objects.update(payload={**job.payload, "snapshot": 10**6})
    job = work_off(job)
    assert (job.state, job.reason) == (Job.State.FAILED, "bug")
    assert "Traceback" not in job.detail


def test_a_second_worker_finds_the_commit_of_a_first_that_died(
    hub: Hub, snapshot: Snapshot
) -> None:
    job = queue_snapshot_push(snapshot=snapshot, repo="lab/helpful")
    work_off(job)
    # The first worker pushed and died before it could say so: the job is claimed once more.
    Job.objects.update(state=Job.State.QUEUED, outcome=None)
    job = work_off(job)
    assert job.state == Job.State.SUCCEEDED
    assert len(hub.repos["dataset", "lab/helpful"].pushes) == 1


def test_the_lease_lives_as_long_as_the_push(
    hub: Hub, snapshot: Snapshot, settings: Settings
) -> None:
    settings.JOB_LEASE_S = 1
    hub.silent_s = 2.5
    hub.fail("POST .*/commit/", "silent")
    job = queue_snapshot_push(snapshot=snapshot, repo="lab/helpful")
    looks: list[list[Job]] = []
    others = threading.Thread(target=lambda: looks.extend(reap_for(2.5)))
    others.start()
    job = work_off(job)
    others.join()
    assert (job.state, job.attempts) == (Job.State.SUCCEEDED, 1)
    assert len(looks) > 3
    assert not any(looks)
    assert not job.events.filter(to_state=Job.State.LOST).exists()


def reap_for(seconds: float) -> list[list[Job]]:
    """What another worker's housekeeping finds, look by look."""
    looks, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        looks.append(queueing.reap_lost())
        time.sleep(0.25)
    connection.close()
    return looks


def test_a_stopping_worker_gives_the_push_back(hub: Hub, snapshot: Snapshot) -> None:
    hub.fail("POST .*/commit/", 503, times=100)
    job = queue_snapshot_push(snapshot=snapshot, repo="lab/helpful")
    claim = queueing.claim(job_id=job.pk)
    assert claim is not None
    stopping = threading.Event()
    threading.Timer(1.0, stopping.set).start()
    execute_push(claim=claim, stopping=stopping, patience=Patience(base_s=200))
    job.refresh_from_db()
    assert (job.state, job.reason) == (Job.State.QUEUED, "preempted")


def test_a_person_can_cancel_a_push_that_waits_for_the_hub(hub: Hub, snapshot: Snapshot) -> None:
    hub.fail("POST .*/commit/", 503, times=100)
    job = queue_snapshot_push(snapshot=snapshot, repo="lab/helpful")
    claim = queueing.claim(job_id=job.pk)
    assert claim is not None
    Job.objects.filter(pk=job.pk).update(cancel_requested=True)
    execute_push(claim=claim, stopping=threading.Event(), patience=Patience(base_s=200))
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED


def test_a_push_whose_lease_was_lost_writes_nothing(hub: Hub, snapshot: Snapshot) -> None:
    job = queue_snapshot_push(snapshot=snapshot, repo="lab/helpful")
    claim = queueing.claim(job_id=job.pk)
    assert claim is not None
    queueing.give_back(claim=claim, reason="lost", detail="")
    with pytest.raises(LostLease):
        execute_push(claim=claim, stopping=threading.Event(), patience=QUICK)
    job.refresh_from_db()
    assert (job.state, job.outcome) == (Job.State.QUEUED, None)


def test_the_worker_does_pushes(hub: Hub, snapshot: Snapshot) -> None:
    job = queue_snapshot_push(snapshot=snapshot, repo="lab/helpful")
    worker = Worker(["default"])
    worker.start()
    end = time.monotonic() + 30
    while time.monotonic() < end and not hub.count("POST .*/commit/"):
        time.sleep(0.1)
    worker.stop()
    job.refresh_from_db()
    assert job.state == Job.State.SUCCEEDED
    assert len(hub.repos["dataset", "lab/helpful"].pushes) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["push_snapshot", "999", "--repo", "lab/x"], "there is no snapshot 999"),
        (["push_model", "x", "--repo", "lab/x"], "invalid int value: 'x'"),
        (["push_model", "999", "--repo", "lab/x"], r"no model version 999 \(latest: none yet\)"),
    ],
)
def test_commands_refuse_in_one_sentence(people: People, arguments: list[str], says: str) -> None:
    with pytest.raises(CommandError, match=says):
        call_command(*arguments)


def test_a_name_that_cannot_be_fails_before_anything_is_written(snapshot: Snapshot) -> None:
    with pytest.raises(CommandError, match="write owner/name"):
        call_command("push_snapshot", str(snapshot.pk), "--repo", "x")


def test_the_command_says_what_the_hub_did_not_like(
    hub: Hub, snapshot: Snapshot, settings: Settings
) -> None:
    settings.HF_TOKEN = ""
    with pytest.raises(CommandError, match="there is no token for"):
        call_command("push_snapshot", str(snapshot.pk), "--repo", "lab/helpful")


def test_two_presses_at_once_queue_one_push(snapshot: Snapshot) -> None:
    together, jobs = threading.Barrier(4), []

    def press() -> None:
        together.wait()
        jobs.append(queue_snapshot_push(snapshot=snapshot, repo="lab/helpful").pk)
        connection.close()

    presses = [threading.Thread(target=press) for _ in range(4)]
    for thread in presses:
        thread.start()
    for thread in presses:
        thread.join()
    assert len(jobs) == 4
    assert Job.objects.count() == 1
