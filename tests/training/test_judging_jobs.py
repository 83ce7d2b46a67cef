"""Judgings as jobs: a worker's loop, a real engine process, a server on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from annotate.models import JudgeVersion, MachineJudgment, Project
from tests.annotate.export.snapshots import real_snapshot
from tests.engine.chat_server import ChatServer, Said, chatting, longer, prefers
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.hub_server import Hub
from tests.people import People
from training.engine.config_judge import RUBRIC
from training.errors import CannotLaunch
from training.models import Job
from training.selectors.waiting import jobs_ahead
from training.services import queueing
from training.services.controlling import cancel_job, retry_job
from training.services.judging_jobs import execute_judging, folder_of, queue_judging
from training.services.machine_judging import judge_from
from training.services.publishing import queue_snapshot_push
from training.services.working import Worker

#: The executor closes stale connections, which an outer test transaction would not survive.
pytestmark = [pytest.mark.alone, pytest.mark.django_db(transaction=True)]
JUDGED, ALONE = 6, 2
QUICK = {"retries": 0, "timeout_s": 20.0}


@pytest.fixture
def project(people: People, settings: Any, tmp_path: Path) -> Project:
    settings.DATA_DIR = tmp_path
    project = make_project(people.workspace)
    someone = make_annotator(people.workspace, name="someone")
    for number in range(JUDGED + ALONE):
        comparison = make_comparison(
            project, prompt=f"Question {number}?", a=f"A long answer {number}.", b=f"No {number}."
        )
        if number < JUDGED:
            make_judgment(comparison, someone)
    return project


@pytest.fixture
def server(settings: Any) -> Iterator[ChatServer]:
    with chatting(prefers(longer)) as server:
        settings.OUTGOING_ALLOW = [place(server)]
        yield server


def place(server: ChatServer) -> str:
    return server.url.removeprefix("http://").removesuffix("/v1")


def registered(project: Project, url: str, **judge: Any) -> JudgeVersion:
    config = {"base": {"source": "none"}, "judge": {"url": url, "model": "m", **judge}}
    return judge_from(project=project, name="strict", config=config)


def work_off(job: Job) -> Job:
    claim = queueing.claim(job_id=job.pk)
    assert claim is not None
    execute_judging(claim=claim, stopping=threading.Event())
    job.refresh_from_db()
    return job


def asked_of(server: ChatServer) -> list[str]:
    return [body["messages"][0]["content"] for body in server.requests]


def test_a_judging_is_done_counted_and_its_key_goes_to_one_server(
    project: Project, server: ChatServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JUDGE_KEYS = [f"KEY_OF_LAB={place(server)}"]
    monkeypatch.setenv("KEY_OF_LAB", "sk-ours")
    answers = prefers(longer)
    # One comparison is answered A whatever is shown first, one without a verdict.
    server.say = lambda text: (
        "[[A]]" if "Question 0?" in text else "Well." if "Question 1?" in text else answers(text)
    )
    bounds = {**QUICK, "price_in": 1.0, "price_out": 2.0, "max_cost": 1.0}
    judge = registered(project, server.url)
    job = queue_judging(judge=judge, project=project, bounds=bounds, key="KEY_OF_LAB")
    assert queue_judging(judge=judge, project=project, bounds=bounds, key="KEY_OF_LAB") == job
    job = work_off(job)
    assert (job.state, job.detail) == (Job.State.SUCCEEDED, "")
    n = JUDGED + ALONE
    assert job.outcome == {
        "step": n, "total_steps": n, "flipped": 1, "failed": 1, "tokens": 110 * 2 * n,
        "cost": pytest.approx(2 * n * 120 / 1e6), "stored": n, "stopped": "",
    }  # fmt: skip
    assert MachineJudgment.objects.filter(judge=judge).count() == n
    assert server.headers[0]["Authorization"] == "Bearer sk-ours"
    assert "sk-ours" not in json.dumps([job.payload, judge.settings])
    assert not folder_of(job).exists()
    with pytest.raises(CannotLaunch, match="has judged every comparison"):
        queue_judging(judge=judge, project=project, key="KEY_OF_LAB")


def fixed(status: int, body: bytes = b"", **headers: str) -> Said:
    return status, body, headers


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (fixed(503), "status 503"),
        (fixed(200, b" " * 4_100_000), "exceeds 4000000 bytes"),
    ],
)
def test_a_server_that_fails_stores_nothing_and_the_next_try_goes_on(
    project: Project, server: ChatServer, said: Said, words: str
) -> None:
    answers = prefers(longer)
    server.say = lambda text: answers(text) if len(server.requests) <= 5 else said
    judge = registered(project, server.url)
    job = work_off(queue_judging(judge=judge, project=project, bounds=QUICK))
    assert (job.state, job.reason) == (Job.State.FAILED, "refused")
    assert words in job.detail
    assert "Traceback" not in job.detail
    assert job.outcome["step"] == 2
    assert not MachineJudgment.objects.exists()
    server.say = answers
    retry_job(job=job)
    assert work_off(job).state == Job.State.SUCCEEDED
    assert len(asked_of(server)) == 2 * (JUDGED + ALONE) + 1
    assert len(set(asked_of(server))) == 2 * (JUDGED + ALONE)


def test_a_slow_server_is_given_up_and_another_judging_takes_its_answers_along(
    project: Project, server: ChatServer
) -> None:
    over = threading.Event()
    answers = prefers(longer)

    def slowly(text: str) -> str:
        if len(server.requests) == 4:
            over.wait(60)
        return answers(text)

    server.say = slowly
    judge = registered(project, server.url)
    job = work_off(queue_judging(judge=judge, project=project, bounds={**QUICK, "timeout_s": 5.0}))
    over.set()
    assert "no whole reply within 5 s" in job.detail
    again = work_off(queue_judging(judge=judge, project=project, bounds=QUICK, limit=3))
    assert (again.state, again.outcome["stored"]) == (Job.State.SUCCEEDED, 3)
    assert len(asked_of(server)) == 7  # the fourth question twice
    assert len(set(asked_of(server))) == 6


def test_a_cancelled_judging_ends_stores_nothing_and_can_go_on(
    project: Project, server: ChatServer
) -> None:
    judge = registered(project, server.url)
    job = queue_judging(judge=judge, project=project, bounds=QUICK)
    answers = prefers(longer)

    def cancelling(text: str) -> str:
        if len(server.requests) == 3:
            Job.objects.filter(pk=job.pk).update(cancel_requested=True)
            connection.close()  # this is the server's thread
            cancelled.wait(60)
        return answers(text)

    cancelled = threading.Event()
    server.say = cancelling
    with pytest.raises(CannotLaunch, match="is judging in Helpful already"):
        queue_judging(judge=judge, project=project, limit=1)
    job = work_off(job)
    cancelled.set()
    assert (job.state, job.reason) == (Job.State.CANCELLED, "cancelled")
    assert not MachineJudgment.objects.exists()
    server.say = answers
    retry_job(job=job)
    assert work_off(job).state == Job.State.SUCCEEDED
    waiting = queue_judging(
        judge=registered(project, server.url, max_new_tokens=9), project=project
    )
    cancel_job(job=waiting)
    waiting.refresh_from_db()
    assert waiting.state == Job.State.CANCELLED


def test_a_worker_that_is_killed_leaves_its_answers_to_the_next(
    project: Project, server: ChatServer
) -> None:
    judge = registered(project, server.url)
    job = queue_judging(judge=judge, project=project, bounds=QUICK)
    stopping = threading.Event()
    answers = prefers(longer)

    def stopped(text: str) -> str:
        if len(server.requests) == 5:
            stopping.set()
            taken.wait(60)
        return answers(text)

    taken = threading.Event()
    server.say = stopped
    claim = queueing.claim(job_id=job.pk)
    assert claim is not None
    execute_judging(claim=claim, stopping=stopping)
    taken.set()
    job.refresh_from_db()
    assert (job.state, job.reason) == (Job.State.QUEUED, "preempted")
    server.say = answers
    job = work_off(job)
    assert (job.state, job.attempts) == (Job.State.SUCCEEDED, 2)
    assert len(set(asked_of(server))) == 2 * (JUDGED + ALONE)
    assert len(asked_of(server)) <= 2 * (JUDGED + ALONE) + 1


def test_addresses_and_keys_that_nobody_allowed_are_refused(
    project: Project, server: ChatServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_LAB", "sk-ours")
    settings.JUDGE_KEYS = ["KEY_OF_LAB=api.example.org:443"]
    judge = registered(project, server.url)
    for key in ("KEY_OF_LAB", "DATABASE_URL", "PATH"):
        with pytest.raises(CannotLaunch, match=f"key '{key}' is not for 127.0.0.1"):
            queue_judging(judge=judge, project=project, key=key)
    job = queue_judging(judge=judge, project=project)
    settings.OUTGOING_ALLOW = []
    job = work_off(job)  # the worker asks again
    assert "is not on the public internet" in job.detail
    assert not server.requests
    for number, url in enumerate(("https://10.0.0.1/v1", "https://[::1]/v1", "https://127.1/v1")):
        private = registered(project, url, max_new_tokens=10 + number)
        with pytest.raises(CannotLaunch, match="is not on the public internet"):
            queue_judging(judge=private, project=project)
    assert Job.objects.count() == 1


def test_the_engine_connects_to_the_checked_addresses_alone(
    project: Project, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers otherwise after the check (DNS rebinding) reaches nothing."""
    from training.services import judging_jobs

    judge = registered(project, server.url)
    monkeypatch.setattr(judging_jobs, "require_outgoing", lambda *_: ["127.0.0.2"])
    job = work_off(queue_judging(judge=judge, project=project, bounds=QUICK))
    assert job.state == Job.State.FAILED
    assert "does not judge" in job.detail
    assert not server.requests


def test_a_judging_that_waits_for_its_server_holds_up_no_push(
    people: People, project: Project, server: ChatServer, hub: Hub
) -> None:
    asked, answered = threading.Event(), threading.Event()

    def slow(_: str) -> str:
        asked.set()
        answered.wait(60)
        return "[[C]]"

    server.say = slow
    judge = registered(project, server.url)
    judging = queue_judging(judge=judge, project=project, bounds={**QUICK, "timeout_s": 300.0})
    snapshot = real_snapshot(people.elsewhere, "hh-helpful")  # it shares the worker
    worker = Worker(Job.Queue.values)
    worker.start()
    try:
        assert asked.wait(60)
        push = queue_snapshot_push(snapshot=snapshot, repo="lab/helpful")
        assert jobs_ahead(push) == 0
        end = time.monotonic() + 60
        while time.monotonic() < end and push.state not in queueing.FINAL:
            time.sleep(0.1)
            push.refresh_from_db()
        judging.refresh_from_db()
    finally:
        worker.stop()
        answered.set()
    assert (push.state, judging.state) == (Job.State.SUCCEEDED, Job.State.RUNNING)
    judging.refresh_from_db()
    assert (judging.state, judging.strikes) == (Job.State.QUEUED, 0)


def test_a_local_base_judges_on_the_device_queue(project: Project) -> None:
    config = {"base": {"source": "demo"}, "judge": {"how": "letters", "rubric": RUBRIC}}
    judge = judge_from(project=project, name="small", config=config)
    job = queue_judging(judge=judge, project=project, limit=1)
    assert job.queue == Job.Queue.SAMPLING
    with pytest.raises(CannotLaunch, match="takes no key"):
        queue_judging(judge=judge, project=project, key="KEY_OF_LAB")
