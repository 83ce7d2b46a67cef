"""The job table: one claim wins, every write needs the token, lost leases come back."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from rlhf_platform.broker import make_broker
from tests.people import People
from training.actors import WAKE
from training.errors import IllegalTransition, LostLease, UnknownBase
from training.models import Job, Run
from training.services import queueing
from training.services.executing import execute_run
from training.services.folders import run_folder
from training.services.processes import PortInUse, listening
from training.services.versions import base_version

State = Job.State
#: The executor closes stale connections, which an outer test transaction would not survive.
pytestmark = pytest.mark.django_db(transaction=True)


def make_job(people: People) -> Job:
    base = base_version(workspace=people.workspace)
    run = Run.objects.create(
        workspace=people.workspace,
        method="sample",
        config={"method": "sample", "base": base.base},
        folder=f"test/{Run.objects.count()}-{os.getpid()}-{time.monotonic_ns()}",
        version=base,
    )
    return queueing.enqueue(kind="run", queue="sampling", workspace=people.workspace, run=run)


def test_one_claim_wins(people: People) -> None:
    job = make_job(people)
    claim = queueing.claim(job_id=job.pk)
    assert claim is not None
    assert claim.attempt == 1
    assert queueing.claim(job_id=job.pk) is None
    assert queueing.claim_next(queues=["sampling"]) is None


def test_a_stale_token_writes_nothing(people: People) -> None:
    job = make_job(people)
    old = queueing.claim(job_id=job.pk)
    assert old is not None
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert queueing.reap_lost() == []
    new = queueing.claim(job_id=job.pk)
    assert new is not None
    assert new.token != old.token
    for write in (
        lambda: queueing.heartbeat(claim=old),
        lambda: queueing.finish(claim=old, to=State.SUCCEEDED),
    ):
        with pytest.raises(LostLease):
            write()
    job.refresh_from_db()
    assert (job.state, job.token) == (State.RUNNING, new.token)


def test_a_job_lost_again_and_again_is_given_up(people: People) -> None:
    job = make_job(people)
    for attempt in range(1, 4):
        claim = queueing.claim(job_id=job.pk)
        assert claim is not None
        assert claim.attempt == attempt
        Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        given_up = queueing.reap_lost()
    assert given_up == [job]
    job.refresh_from_db()
    assert (job.state, job.reason) == (State.FAILED, "lost")
    moves = list(job.events.values_list("from_state", "to_state"))
    assert moves.count(("queued", "running")) == 3
    assert moves[-1] == ("lost", "failed")


def test_a_worker_that_comes_back_while_the_reaper_waits_keeps_its_job(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(people)
    claim = queueing.claim(job_id=job.pk)
    assert claim is not None
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    lock = queueing.lock_if_overdue

    def beaten_before_the_lock(job: Job) -> bool:
        queueing.heartbeat(claim=claim)
        return lock(job)

    monkeypatch.setattr(queueing, "lock_if_overdue", beaten_before_the_lock)
    assert queueing.reap_lost() == []
    job.refresh_from_db()
    assert (job.state, job.token, job.strikes) == (State.RUNNING, claim.token, 0)


def test_a_worker_paused_in_a_transaction_holds_up_no_other_job(people: People) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one lock for all")
    held, other = make_job(people), make_job(people)
    claims = [queueing.claim(job_id=job.pk) for job in (held, other)]
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    inside, resume = threading.Event(), threading.Event()

    def paused() -> None:
        assert claims[0] is not None
        try:
            with queueing.fenced(claim=claims[0]):
                inside.set()
                resume.wait(20)
        finally:
            connection.close()

    worker = threading.Thread(target=paused)
    worker.start()
    try:
        assert inside.wait(10)
        queueing.reap_lost()
        assert worker.is_alive()  # it was not waited for
        states = dict(Job.objects.values_list("pk", "state"))
        assert states == {held.pk: State.RUNNING, other.pk: State.QUEUED}
    finally:
        resume.set()
        worker.join()
    queueing.reap_lost()
    held.refresh_from_db()
    assert held.state == State.QUEUED


def test_moves_the_table_lacks_are_refused(people: People) -> None:
    job = make_job(people)
    with pytest.raises(IllegalTransition):
        queueing.transition(job.pk, from_state=State.SUCCEEDED, to=State.RUNNING)
    with pytest.raises(IllegalTransition):
        queueing.retry(job=job)


def test_a_waiting_job_is_cancelled_at_once_and_can_be_retried(people: People) -> None:
    job = make_job(people)
    queueing.request_cancel(job=job)
    job.refresh_from_db()
    assert job.state == State.CANCELLED
    queueing.retry(job=job)
    job.refresh_from_db()
    assert job.state == State.QUEUED


def test_old_waiting_jobs_are_announced_again(people: People) -> None:
    make_job(people)
    assert queueing.dispatch_waiting() == 0
    Job.objects.update(created_at=timezone.now() - timedelta(seconds=20), notified_at=None)
    assert queueing.dispatch_waiting() == 1
    assert queueing.dispatch_waiting() == 0


def test_a_broker_that_hangs_is_asked_once_and_not_for_every_job(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        make_job(people)
    Job.objects.update(created_at=timezone.now() - timedelta(seconds=20), notified_at=None)
    asked = []

    def hang(*_: object) -> None:
        asked.append(1)
        raise TimeoutError("Timeout reading from socket")

    for actor in WAKE.values():
        monkeypatch.setattr(actor, "send", hang)
    assert queueing.dispatch_waiting() == 0
    assert len(asked) == 1


# A program that follows the run-directory contract stands in for the engine at the process edge.
ENGINE = """
import json, os, pathlib, signal, sys, time
mode, folder, attempt = sys.argv[1], pathlib.Path(sys.argv[3]), sys.argv[5]
(folder / "environment.json").write_text(json.dumps(sorted(os.environ)))
events = (folder / "attempts" / attempt / "events.jsonl").open("a")
event = {"seq": 0, "at": "2026-01-01T00:00:00+00:00", "kind": "metrics", "step": 1}
events.write(json.dumps(event | {"values": {"loss/train": 0.5}}) + "\\n")
events.flush()
if mode == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "hang":
    time.sleep(600)
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
result = {"status": "refused", "reason": "no such base", "metrics": {}, "adapter": None}
(folder / "result.json").write_text(json.dumps(result))
sys.exit(1)
"""


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    program = tmp_path / "engine.py"
    program.write_text(ENGINE)
    return program


def start(people: People, engine: Path, mode: str) -> tuple[Job, queueing.Claim, list[str]]:
    job = make_job(people)
    assert job.run is not None
    folder = run_folder(job.run)
    (folder / "data").mkdir(parents=True)
    claim = queueing.claim(job_id=job.pk)
    assert claim is not None
    return job, claim, [sys.executable, str(engine), mode]


def test_a_refusal_fails_the_job_with_its_reason(people: People, engine: Path) -> None:
    job, claim, command = start(people, engine, "refuse")
    execute_run(claim=claim, stopping=threading.Event(), command=command)
    job.refresh_from_db()
    assert (job.state, job.reason, job.detail) == (State.FAILED, "refused", "no such base")
    assert job.run is not None
    assert job.run.metrics.get().value == 0.5
    assert job.run.events.count() == 1


def test_a_killed_child_is_explained_and_tried_again(people: People, engine: Path) -> None:
    job, claim, command = start(people, engine, "die")
    execute_run(claim=claim, stopping=threading.Event(), command=command)
    job.refresh_from_db()
    assert (job.state, job.reason, job.strikes) == (State.QUEUED, "lost", 1)
    assert "killed from outside" in job.detail


@pytest.mark.parametrize("mode", ["hang", "deaf"])
def test_a_cancelled_run_ends_and_leaves_no_process(
    mode: str, people: People, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.services.supervising.GRACE_S", 1.0)
    job, claim, command = start(people, engine, mode)
    Job.objects.update(cancel_requested=True)
    started = time.monotonic()
    execute_run(claim=claim, stopping=threading.Event(), command=command)
    assert time.monotonic() - started < 10
    job.refresh_from_db()
    assert job.state == State.CANCELLED


def test_a_stopping_worker_gives_its_job_back(people: People, engine: Path) -> None:
    job, claim, command = start(people, engine, "hang")
    stopping = threading.Event()
    stopping.set()
    execute_run(claim=claim, stopping=stopping, command=command)
    job.refresh_from_db()
    assert (job.state, job.reason) == (State.QUEUED, "preempted")


def test_a_worker_that_lost_its_lease_kills_its_child(people: People, engine: Path) -> None:
    job, claim, command = start(people, engine, "deaf")
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    queueing.reap_lost()
    newer = queueing.claim(job_id=job.pk)
    assert newer is not None
    with pytest.raises(LostLease):
        execute_run(claim=claim, stopping=threading.Event(), command=command)
    job.refresh_from_db()
    assert job.token == newer.token


def test_the_child_sees_no_secret(
    people: People, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SECRET_KEY", "DATABASE_URL", "HF_TOKEN"):
        monkeypatch.setenv(name, "secret")
    job, claim, command = start(people, engine, "refuse")
    execute_run(claim=claim, stopping=threading.Event(), command=command)
    assert job.run is not None
    seen = (run_folder(job.run) / "environment.json").read_text()
    for name in ("SECRET_KEY", "DATABASE_URL", "HF_TOKEN"):
        assert name not in seen


def test_a_comparison_sees_the_database_of_its_vectors_and_no_other_run_does(
    people: People, engine: Path, settings: Any
) -> None:
    settings.VECTORS_DATABASE_URL = "postgres://u:secret@127.0.0.1/vectors"
    seen = {}
    for method in ("compare", "answer", "sample"):
        job, claim, command = start(people, engine, "refuse")
        assert job.run is not None
        Run.objects.filter(pk=job.run.pk).update(method=method)
        claim.job.run.refresh_from_db()  # type: ignore[union-attr]
        execute_run(claim=claim, stopping=threading.Event(), command=command)
        folder = run_folder(job.run)
        seen[method] = set(json.loads((folder / "environment.json").read_text()))
        written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
        assert not any(b"secret@" in text for text in written)
    assert seen["answer"] == seen["sample"]
    assert seen["compare"] - seen["answer"] == {"VECTORS_DATABASE_URL"}
    assert seen["answer"] - seen["compare"] == set()


def test_bases_that_cannot_be_are_refused(people: People) -> None:
    for source in ("/no/such/folder", "x.gguf", "two words", "a/b/c"):
        with pytest.raises(UnknownBase):
            base_version(workspace=people.workspace, source=source)
    again = base_version(workspace=people.workspace)
    assert again == base_version(workspace=people.workspace)


def test_a_port_in_use_is_named() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            listening("127.0.0.1", port)


def test_unknown_brokers_are_refused() -> None:
    with pytest.raises(ValueError, match="BROKER_URL"):
        make_broker("kafka://somewhere")
