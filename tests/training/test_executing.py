"""Reading back what an engine wrote: it may be cut, huge, or nothing a database can hold."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_prompt_set, make_round, make_run
from training.errors import LostLease
from training.models import Job, Round, Run, RunEvent, RunMetric
from training.services import executing, queueing, working
from training.services.executing import execute_run, succeed
from training.services.folders import run_folder
from training.services.forwarding import PIECE_BYTES, Forwarder, read_result
from training.services.rounds import cancel_round, retry_round
from training.services.working import Worker

#: The executor closes stale connections, which an outer test transaction would not survive.
pytestmark = [pytest.mark.alone, pytest.mark.django_db(transaction=True)]
State = Job.State


@pytest.fixture
def run(people: People) -> Run:
    return make_run(make_round(make_project(people.workspace)), state="queued")


def line(seq: int, kind: str = "progress", **body: object) -> bytes:
    event = {"seq": seq, "at": "2026-01-01T00:00:00+00:00", "kind": kind, **body}
    return json.dumps(event).encode() + b"\n"


def claimed(run: Run) -> queueing.Claim:
    claim = queueing.claim(job_id=run.job.pk)
    assert claim is not None
    return claim


def finished(run: Run, **result: object) -> Path:
    """The folder of a run whose engine has ended with this result."""
    folder = run_folder(run)
    (folder / "data").mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"status": "done", "metrics": {}, **result}))
    return folder


def test_lines_that_are_no_events_are_passed_over(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    bad = [
        b"not json\n", b"[1]\n", b'{"seq": 7}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n",
        line(-1), line(2**40), line(8, "k" * 21), line(9).replace(b"+00:00", b""),
        line(10, "metrics", values=[1], step=1), line(11, "metrics", values={"n" * 61: 1}, step=1),
    ]  # fmt: skip
    path.write_bytes(line(0) + b"".join(bad) + line(1, "metrics", step=1, values={"loss": 0.5}))
    Forwarder(claimed(run), 1, tmp_path).forward()
    assert sorted(RunEvent.objects.values_list("seq", flat=True)) == [0, 1, 10, 11]
    assert RunMetric.objects.get().value == 0.5


def test_what_no_database_holds_is_stored_as_what_it_can(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(
        line(0, "sample", text="a\x00b", prompt=[{"content": "\ud800"}])
        + line(1, "metrics", step=1, values={"loss": float("nan"), "kl": 1.0})
    )
    Forwarder(claimed(run), 1, tmp_path).forward()
    sample = RunEvent.objects.get(seq=0).body
    assert sample["text"] == "a\N{SYMBOL FOR NULL}b"
    assert sample["prompt"] == [{"content": "?"}]
    assert RunMetric.objects.get().name == "kl"


def test_a_large_file_is_read_in_pieces_and_a_line_without_end_is_given_up(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(0) + b"x" * (2 * PIECE_BYTES) + b"\n" + line(1) + line(2)[:-5])
    forwarder = Forwarder(claimed(run), 1, tmp_path)
    forwarder.forward()
    assert list(RunEvent.objects.values_list("seq", flat=True)) == [0, 1]
    with path.open("ab") as handle:
        handle.write(line(2)[-5:])
    forwarder.forward()  # a half line waits for its other half
    assert RunEvent.objects.count() == 3


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"done"', "\x00", "[" * 100_000])
def test_a_result_that_cannot_be_read_is_a_failed_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    found = read_result(tmp_path)
    assert found is not None
    assert found["status"] == "failed"
    assert "cannot be read" in found["reason"]


def test_a_result_without_a_finite_number_can_be_stored(run: Run) -> None:
    folder = finished(run, status="refused", reason="no\x00", metrics={"loss": float("inf")})
    found = read_result(folder)
    Run.objects.filter(pk=run.pk).update(result=found)
    run.refresh_from_db()
    assert run.result == found


def test_a_broken_result_of_an_earlier_attempt_steps_aside(run: Run) -> None:
    folder = finished(run)
    (folder / "result.json").write_text("{")
    execute_run(claim=claimed(run), stopping=threading.Event(), command=["true"])
    assert (folder / "result-before-2.json").read_text() == "{"


def test_a_worker_that_was_paused_does_not_move_the_next_ones_result(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished(run)
    old = claimed(run)

    def paused_after_reading(_: Path) -> dict[str, Any]:
        queueing.give_back(claim=old, reason="lost", detail="")
        claimed(run)
        return {"status": "failed"}

    monkeypatch.setattr(executing, "read_result", paused_after_reading)
    with pytest.raises(LostLease):
        execute_run(claim=old, stopping=threading.Event(), command=["true"])
    assert (folder / "result.json").exists()


def test_a_job_that_cannot_be_prepared_fails_and_the_worker_goes_on(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(method="sample")  # its prompt set is gone
    worker = Worker(["training"])
    worker._work(claimed(run))
    job, round = Job.objects.get(run=run), Round.objects.get()
    assert (job.state, job.reason, round.state) == (State.FAILED, "bug", Round.State.FAILED)
    assert "fault of ours" in job.detail
    assert "Traceback" not in job.detail


def test_a_database_that_is_away_fails_no_finished_run(run: Run) -> None:
    folder = finished(run)
    claim = claimed(run)

    def away(execute: object, sql: str, *rest: object) -> None:
        raise OperationalError("the database is away")

    with connection.execute_wrapper(away), pytest.raises(OperationalError):
        succeed(claim, read_result(folder) or {})
    assert (
        Job.objects.get(run=run).state == State.RUNNING
    )  # its lease ends; the next try takes over


def test_a_run_that_was_done_before_it_heard_of_the_cancel_ends_its_round(people: People) -> None:
    round = make_round(make_project(people.workspace), state="training_reward")
    run = make_run(round, stage="reward", state="queued")
    finished(run)
    claim = claimed(run)
    cancel_round(round=round)
    execute_run(claim=claim, stopping=threading.Event())
    round.refresh_from_db()
    assert (Job.objects.get(run=run).state, round.state) == (State.SUCCEEDED, Round.State.CANCELLED)
    assert round.runs.count() == 1
    retry_round(round=round)  # goes on with what comes next
    round.refresh_from_db()
    assert round.state == Round.State.TRAINING_POLICY
    assert [found.stage for found in round.runs.order_by("pk")] == ["reward", "policy"]


def test_a_cancel_outlives_the_worker_that_was_asked(run: Run) -> None:
    round = run.round
    assert round is not None
    claimed(run)
    cancel_round(round=round)
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    queueing.reap_lost()
    execute_run(claim=claimed(run), stopping=threading.Event(), command=["false"])
    round.refresh_from_db()
    assert (Job.objects.get(run=run).state, round.state) == (State.CANCELLED, Round.State.CANCELLED)
    assert not run_folder(run).exists()


def test_a_run_given_up_ends_its_round_in_the_same_transaction(run: Run) -> None:
    claimed(run)
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1), strikes=2)
    with pytest.raises(KeyError):
        queueing.reap_lost(on_given_up=lambda job: {}[job])
    assert Job.objects.get(run=run).state == State.RUNNING
    worker = Worker(["training"])
    worker.stopping.set()
    worker._keep_house()
    assert Job.objects.get(run=run).state == State.FAILED
    assert Round.objects.get().state == Round.State.FAILED


def test_a_worker_that_was_away_lets_the_others_beat_first(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(working, "clock", lambda: now[0])
    worker = Worker(["training"])
    worker.stopping.set()
    claim = claimed(run)
    worker._keep_house()

    now[0] += 60  # the database is away, or the machine sleeps
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    worker._keep_house()
    queueing.heartbeat(claim=claim)
    now[0] += 5
    worker._keep_house()
    job = Job.objects.get()
    assert (job.state, job.strikes) == (State.RUNNING, 0)

    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    now[0] += 2
    worker._keep_house()
    job.refresh_from_db()
    assert (job.state, job.strikes) == (State.QUEUED, 1)


def test_a_retry_forgets_the_cancel(run: Run) -> None:
    claim = claimed(run)
    queueing.request_cancel(job=claim.job)
    queueing.finish(claim=claim, to=State.CANCELLED)
    queueing.retry(job=claim.job)
    assert not Job.objects.get(run=run).cancel_requested


def test_the_prompts_of_another_workspace_are_not_read(people: People, run: Run) -> None:
    theirs = make_prompt_set(people.elsewhere, "theirs")
    Run.objects.filter(pk=run.pk).update(method="sample")
    Job.objects.filter(run=run).update(payload={"prompt_set": theirs.pk}, token=None)
    Worker(["training"])._work(claimed(run))
    assert Job.objects.get(run=run).state == State.FAILED
    assert not run_folder(run).exists()
