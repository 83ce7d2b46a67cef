"""Leases, pulses and events while the database, the worker or the child is away."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.db import OperationalError, connections
from django.utils import timezone

from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_round, make_run
from training.errors import LostLease
from training.models import Job, JobAttempt, Run, RunCheckpoint, RunEvent, RunMetric
from training.services import queueing
from training.services.children import Child, count_kills
from training.services.executing import execute_run
from training.services.folders import run_folder
from training.services.forwarding import Forwarder, replay_earlier
from training.services.leases import CHILD_PATIENCE, SAFE, WORRIED, Lease

#: Threads of their own see only what is committed.
pytestmark = [pytest.mark.alone, pytest.mark.django_db(transaction=True)]
State = Job.State
TETHER = "from training.engine.tether import tie; "


@pytest.fixture
def run(people: People) -> Run:
    return fresh_run(people, stage="policy")


def fresh_run(people: People, *, stage: str) -> Run:
    """A queued run that nobody has tried yet."""
    run = make_run(make_round(make_project(people.workspace)), stage=stage, state="queued")
    Job.objects.update(attempts=0)
    return run


def claimed(run: Run) -> queueing.Claim:
    claim = queueing.claim(job_id=run.job.pk)
    assert claim is not None
    return claim


def taken_from(claim: queueing.Claim) -> None:
    """The job's lease runs out, and it goes back to the queue."""
    while Job.objects.filter(token=claim.token).exists():  # a beat may come in between
        Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        queueing.reap_lost()


def line(seq: int, kind: str = "progress", **body: object) -> bytes:
    event = {"seq": seq, "at": "2026-01-01T00:00:00+00:00", "kind": kind, **body}
    return json.dumps(event).encode() + b"\n"


def write_events(run: Run, claim: queueing.Claim, *lines: bytes) -> Path:
    folder = run_folder(run) / "attempts" / claim.token.hex
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "events.jsonl").open("ab") as out:
        out.writelines(lines)
    return folder


def until(true: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


class Outage:
    """While it lasts, no statement of any connection of this process reaches the database."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lasts, self.refused = False, 0
        wrapper_class = type(connections["default"])
        original = wrapper_class.cursor

        def cursor(wrapper: Any, *rest: Any) -> Any:
            if self.lasts:
                self.refused += 1
                raise OperationalError("the server closed the connection unexpectedly")
            return original(wrapper, *rest)

        monkeypatch.setattr(wrapper_class, "cursor", cursor)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(monkeypatch)


# Leases -----------------------------------------------------------------------------------------
def test_no_child_lives_into_the_lease_of_another() -> None:
    assert WORRIED < SAFE
    assert SAFE + CHILD_PATIENCE < 1
    assert CHILD_PATIENCE <= 0.5  # a stopped supervisor's child is gone within half a lease


def test_a_lease_is_kept_while_the_work_goes_on(run: Run, settings: Any) -> None:
    settings.JOB_LEASE_S = 1
    claim = claimed(run)
    with Lease(claim, threading.Event()) as lease:
        time.sleep(1.5)
        assert queueing.reap_lost() == []
        assert lease.safe
        assert not lease.interrupt.is_set()
    assert Job.objects.get().token == claim.token


def test_a_worker_paused_right_after_its_claim_does_not_trust_it(
    run: Run, settings: Any, outage: Outage
) -> None:
    settings.JOB_LEASE_S = 1
    claim = claimed(run)
    time.sleep(1)
    outage.lasts = True
    with Lease(claim, threading.Event()) as lease:
        assert not lease.safe
    outage.lasts = False


def test_whoever_lost_the_lease_hears_of_it(run: Run, settings: Any) -> None:
    settings.JOB_LEASE_S = 1
    claim = claimed(run)
    with Lease(claim, threading.Event()) as lease:
        taken_from(claim)
        assert lease.interrupt.wait(10)
        assert not lease.safe
        with pytest.raises(LostLease):
            lease.check()


def test_a_cancel_and_a_stop_interrupt(run: Run, settings: Any) -> None:
    settings.JOB_LEASE_S = 1
    claim, stopping = claimed(run), threading.Event()
    with Lease(claim, stopping) as lease:
        queueing.request_cancel(job=claim.job)
        assert lease.interrupt.wait(10)
        assert lease.cancel_requested
    with Lease(claim, stopping) as lease:
        stopping.set()
        assert lease.interrupt.wait(10)


def test_an_absent_database_makes_a_lease_unsafe_and_its_return_safe(
    run: Run, settings: Any, outage: Outage
) -> None:
    settings.JOB_LEASE_S = 2
    with Lease(claimed(run), threading.Event()) as lease:
        outage.lasts = True
        until(lambda: lease.age > WORRIED, "the lease to be worrying")
        assert lease.safe
        until(lambda: not lease.safe, "the lease to be unsafe")
        outage.lasts = False
        until(lambda: lease.safe, "the lease to be safe again")


# Children ---------------------------------------------------------------------------------------
def child_of(
    tmp_path: Path,
    code: str,
    alive: Callable[[], bool] = lambda: True,
    *,
    tie: str = "tie(fd, patience); ",
) -> Child:
    """A child that ties itself as the engine does, then runs `code`."""
    given = "import sys, time; a = sys.argv; fd, patience = int(a[-3]), float(a[-1]); "
    command = [sys.executable, "-c", given + TETHER + tie + code]
    return Child(command, tmp_path, "a1", alive=alive)


def test_the_end_of_a_log_is_text_that_a_database_holds(tmp_path: Path) -> None:
    child = child_of(tmp_path, r"print('cut\0 off', flush=True)")
    try:
        child.process.wait(20)
        assert child.last_words() == "cut\N{SYMBOL FOR NULL} off"
    finally:
        child.close()


def test_a_child_without_a_pulse_ends_itself(tmp_path: Path, settings: Any) -> None:
    settings.JOB_LEASE_S = 4
    beating = threading.Event()
    beating.set()
    child = child_of(tmp_path, "print('up', flush=True); time.sleep(60)", beating.is_set)
    try:
        until(lambda: "up" in child.log_tail(), "the child to be up")
        time.sleep(settings.JOB_LEASE_S * CHILD_PATIENCE * 1.5)
        assert child.process.poll() is None
        beating.clear()
        assert child.process.wait(10) == 75
        assert not child.killed
    finally:
        child.close()


def test_a_pulse_with_a_high_number_is_heard_too(tmp_path: Path, settings: Any) -> None:
    """A worker with many files open hands its child a descriptor that select() refuses."""
    settings.JOB_LEASE_S = 4
    give = "import fcntl, resource as r; "
    give += "r.setrlimit(r.RLIMIT_NOFILE, (1200, r.getrlimit(r.RLIMIT_NOFILE)[1])); "
    give += "tie(fcntl.fcntl(fd, fcntl.F_DUPFD, 1100), patience); "
    child = child_of(tmp_path, "time.sleep(60)", lambda: False, tie=give)
    try:
        assert child.process.wait(20) == 75
    finally:
        child.close()


def test_a_closed_child_takes_its_own_children_with_it(tmp_path: Path) -> None:
    code = (
        "import subprocess as s; p = s.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    )
    child = child_of(tmp_path, code)
    until(lambda: child.log_tail().strip().isdigit(), "the grandchild's number")
    grandchild = psutil.Process(int(child.log_tail()))
    child.close()
    until(lambda: gone(grandchild), "the grandchild to be gone")


def gone(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_child_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    """The pipe is kept open by a third process here, so that only the kernel can end the child."""
    log = tmp_path / "pid"
    read, write = os.pipe()
    inner = f"import os, time; {TETHER}tie({read}, None); "
    inner += f"open({str(log)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    outer = f"import subprocess as s, sys, time; c = [sys.executable, '-c', {inner!r}]; "
    outer += f"s.Popen(c, pass_fds=[{read}]); time.sleep(60)"
    parent = psutil.Popen([sys.executable, "-c", outer], pass_fds=[read, write])
    try:
        until(lambda: log.exists() and log.read_text().isdigit(), "the child to be up")
        child = psutil.Process(int(log.read_text()))
    finally:
        parent.kill()
        parent.wait()
    until(lambda: gone(child), "the child to be gone")
    os.close(read)
    os.close(write)


def test_kills_of_the_kernel_are_counted(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\noom 4\noom_kill 2\n")
    (tmp_path / "vmstat").write_text("nr_free_pages 12\noom_kill 5\nswap_ra 0\n")
    sources = [tmp_path / "memory.events", tmp_path / "vmstat", tmp_path / "missing"]
    assert count_kills(sources) == 7
    assert count_kills(sources[2:]) is None


# Events -----------------------------------------------------------------------------------------
def test_events_of_a_lost_claim_are_not_stored(run: Run) -> None:
    old = claimed(run)
    forwarder = Forwarder(old, 1, write_events(run, old, line(0)))
    forwarder.forward()
    write_events(run, old, line(1, "metrics", step=1, values={"loss/train": 9.0}))
    taken_from(old)
    claimed(run)
    with pytest.raises(LostLease):
        forwarder.forward()
    assert RunEvent.objects.count() == 1
    assert not RunMetric.objects.exists()


def test_what_a_dead_worker_left_is_stored_by_the_next_before_its_own(run: Run) -> None:
    old = claimed(run)
    point = {"values": {"loss/train": 1.0}}
    folder = write_events(run, old, line(0), line(1, "metrics", step=1, **point))
    Forwarder(old, 1, folder).forward()
    write_events(run, old, line(2, "metrics", step=2, **point), line(3)[:-9])
    taken_from(old)
    new = claimed(run)
    replay_earlier(claim=new, folder=run_folder(run))
    assert list(RunEvent.objects.values_list("attempt", "seq")) == [(1, 0), (1, 1), (1, 2)]
    assert list(RunMetric.objects.values_list("step", "attempt")) == [(1, 1), (2, 1)]
    Forwarder(new, 2, write_events(run, new, line(0, "metrics", step=2, **point))).forward()
    # Whatever the first attempt writes after this came too late to count.
    write_events(run, old, b"\n", line(4, "metrics", step=2, values={"loss/train": 5.0}))
    taken_from(new)
    replay_earlier(claim=claimed(run), folder=run_folder(run))
    assert RunMetric.objects.get(step=2).value == 1.0
    assert RunEvent.objects.filter(attempt=1).count() == 3


def test_a_checkpoint_further_on_takes_back_the_strikes(run: Run) -> None:
    claim = claimed(run)
    Job.objects.update(strikes=2)
    path = f"attempts/{claim.token.hex}/checkpoints/step-00000002"
    folder = write_events(
        run, claim, line(0, "checkpoint", step=2, path=path, sha256="ab" * 32, bytes=1234),
        line(1, "checkpoint", step=3, path="../elsewhere", sha256="", bytes=1),
        line(2, "checkpoint", step=-1, path=path),
    )  # fmt: skip
    Forwarder(claim, 1, folder).forward()
    row = RunCheckpoint.objects.get()
    assert (row.step, row.attempt, row.path, row.size_bytes) == (2, 1, path, 1234)
    assert Job.objects.get().strikes == 0
    Job.objects.update(strikes=1)
    write_events(run, claim, line(3, "checkpoint", step=2, path=path))  # no further than before
    Forwarder(claim, 1, folder).forward()
    assert Job.objects.get().strikes == 1


def test_a_checkpoint_that_its_attempt_deleted_is_no_longer_expected(run: Run) -> None:
    claim = claimed(run)
    paths = [f"attempts/{claim.token.hex}/checkpoints/step-0000000{step}" for step in (1, 2)]
    folder = write_events(
        run, claim,
        *(line(i, "checkpoint", step=i + 1, path=path) for i, path in enumerate(paths)),
        line(2, "checkpoint_removed", step=1, path=paths[0]),
    )  # fmt: skip
    Forwarder(claim, 1, folder).forward()
    assert [row.removed_at is None for row in RunCheckpoint.objects.all()] == [False, True]


# Whole runs -------------------------------------------------------------------------------------
#: Follows the run-directory contract: reports five steps a tenth of a second apart, then its end.
ENGINE = """
import json, os, pathlib, signal, sys, time
from training.engine.tether import tie
folder, attempt = pathlib.Path(sys.argv[2]), sys.argv[4]
tie(int(sys.argv[6]), float(sys.argv[8]))
signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
events = (folder / "attempts" / attempt / "events.jsonl").open("a")
for step in range(1, 6):
    event = {"seq": step - 1, "at": "2026-01-01T00:00:00+00:00", "kind": "metrics", "step": step}
    print(json.dumps(event | {"values": {"loss/train": 1.0 / step}}), file=events, flush=True)
    time.sleep(SECONDS)
exit = STATUS
if exit == 0:
    result = {"status": "done", "reason": None, "metrics": {}, "adapter": None}
    (folder / "result.json").write_text(json.dumps(result))
print("no room: 12 MB needed, 3 MB left")
sys.exit(exit)
"""


def engine(tmp_path: Path, *, seconds: float = 0.1, status: int = 0) -> list[str]:
    program = tmp_path / "engine.py"
    program.write_text(ENGINE.replace("SECONDS", str(seconds)).replace("STATUS", str(status)))
    return [sys.executable, str(program)]


@pytest.fixture
def evaluation(people: People, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A queued run whose folder is there, outside the engine's own methods."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr("training.services.children.ENVIRONMENT", ("PATH", "PYTHONPATH"))
    run = fresh_run(people, stage="evaluate")
    (run_folder(run) / "data").mkdir(parents=True)
    return run


def test_a_short_outage_costs_neither_the_run_nor_a_metric(
    evaluation: Run, tmp_path: Path, outage: Outage
) -> None:
    def leave_and_return() -> None:
        outage.lasts = True
        time.sleep(2)
        outage.lasts = False

    claim = claimed(evaluation)
    away = threading.Timer(0.8, leave_and_return)
    away.start()
    # It ends in the middle of the outage: events and result wait for the database.
    execute_run(claim=claim, stopping=threading.Event(), command=engine(tmp_path, seconds=0.3))
    away.join()
    assert outage.refused
    job = Job.objects.get(run=evaluation)
    assert (job.state, job.attempts) == (State.SUCCEEDED, 1)
    assert list(RunMetric.objects.values_list("step", flat=True)) == [1, 2, 3, 4, 5]
    assert JobAttempt.objects.get().outcome == State.SUCCEEDED


def test_a_long_outage_stops_the_child_before_another_may_claim(
    evaluation: Run, tmp_path: Path, outage: Outage, settings: Any
) -> None:
    settings.JOB_LEASE_S = 3
    claim, began = claimed(evaluation), time.monotonic()

    def leave_and_return() -> None:
        outage.lasts = True
        time.sleep(settings.JOB_LEASE_S)
        outage.lasts = False

    away = threading.Timer(0.5, leave_and_return)
    away.start()
    execute_run(claim=claim, stopping=threading.Event(), command=engine(tmp_path, seconds=60))
    away.join()
    assert time.monotonic() - began < 30
    job = Job.objects.get(run=evaluation)
    assert (job.state, job.reason, job.strikes) == (State.QUEUED, "preempted", 0)
    assert "database was away" in job.detail


def test_a_full_disk_fails_with_its_sentence_and_no_result(evaluation: Run, tmp_path: Path) -> None:
    command = engine(tmp_path, seconds=0, status=74)
    execute_run(claim=claimed(evaluation), stopping=threading.Event(), command=command)
    job = Job.objects.get(run=evaluation)
    assert (job.state, job.reason) == (State.FAILED, "disk")
    assert job.detail == "no room: 12 MB needed, 3 MB left"
    assert not (run_folder(evaluation) / "result.json").exists()


def test_a_child_that_dies_without_getting_further_is_given_up(
    evaluation: Run, tmp_path: Path
) -> None:
    for _ in range(3):
        command = engine(tmp_path, seconds=0, status=3)
        execute_run(claim=claimed(evaluation), stopping=threading.Event(), command=command)
    job = Job.objects.get(run=evaluation)
    assert (job.state, job.reason, job.attempts) == (State.FAILED, "bug", 3)
    assert "status 3" in job.detail
    assert [row.outcome for row in job.attempt_rows.all()] == [State.LOST, State.LOST, State.FAILED]
