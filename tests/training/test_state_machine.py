"""The queue beside a model of it: two workers, a reaper and a person act in any order.

Each rule does something through the services and the database, and says what it must give. After
every step the rows are those of the model, and of all tokens a job ever had at most one can write.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import pytest
from django.db.models import F
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rlhf_platform.accounts.models import Workspace
from tests.training.rows import BEGIN, make_version
from training.errors import IllegalTransition, LostLease
from training.models import Job, JobAttempt, JobEvent, ModelVersion, Run, RunEvent
from training.services import queueing
from training.services.queueing import FINAL, TRANSITIONS, Claim, State

#: The services open transactions of their own, and wake the workers when those commit.
pytestmark = pytest.mark.django_db(transaction=True)
MAX_JOBS = 3
STEPS_AT_ONCE = 50
#: Which of the things that are there; taken modulo their number.
ANY = st.integers(min_value=0, max_value=255)
WORKERS = st.sampled_from(["ada", "ben"])


@dataclass
class Expected:
    """How a job should stand."""

    state: str = State.QUEUED
    token: UUID | None = None
    attempts: int = 0
    strikes: int = 0
    cancel_requested: bool = False
    overdue: bool = False

    def leave(self, to: str) -> None:
        self.state, self.token, self.overdue = to, None, False


class Queue(RuleBasedStateMachine):
    """The jobs of one workspace."""

    #: Steps of all machines so far.
    taken = 0

    def __init__(self) -> None:
        super().__init__()
        self.workspace = Workspace.objects.create(slug="lab", name="Lab")
        self.base = make_version(self.workspace)
        self.expected: dict[int, Expected] = {}
        self.claims: dict[str, list[Claim]] = {"ada": [], "ben": []}
        self.numbers = itertools.count()

    @invariant()
    def a_step_was_taken(self) -> None:
        Queue.taken += 1

    def teardown(self) -> None:
        Queue.taken -= 1  # invariants are looked at once before the first step
        for model in (Job, Run, ModelVersion, Workspace):
            model.objects.all().delete()

    def job(self, which: int) -> Job:
        ids = sorted(self.expected)
        return Job.objects.get(pk=ids[which % len(ids)])

    def held(self, worker: str, which: int) -> tuple[Claim, Expected, bool]:
        """One of the claims that a worker ever made, its job, and whether it still holds."""
        claim = self.claims[worker][which % len(self.claims[worker])]
        expected = self.expected[claim.job.pk]
        return claim, expected, expected.token == claim.token

    def note(self, worker: str, claim: Claim) -> None:
        expected = self.expected[claim.job.pk]
        assert expected.state == State.QUEUED
        expected.state, expected.token, expected.overdue = State.RUNNING, claim.token, False
        expected.attempts += 1
        assert claim.attempt == expected.attempts
        self.claims[worker].append(claim)

    # A person ----------------------------------------------------------------------------------

    @precondition(lambda self: len(self.expected) < MAX_JOBS)
    @rule()
    def launch(self) -> None:
        run = Run.objects.create(
            workspace=self.workspace,
            method="sample",
            config={},
            folder=f"run-{next(self.numbers)}",
            version=self.base,
        )
        job = queueing.enqueue(kind="run", queue="sampling", workspace=self.workspace, run=run)
        self.expected[job.pk] = Expected()

    @precondition(lambda self: self.expected)
    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        job = self.job(which)
        queueing.request_cancel(job=job)
        expected = self.expected[job.pk]
        if expected.state == State.QUEUED:
            expected.leave(State.CANCELLED)
        elif expected.state == State.RUNNING:
            expected.cancel_requested = True

    @precondition(lambda self: self.expected)
    @rule(which=ANY)
    def retry(self, which: int) -> None:
        job = self.job(which)
        expected = self.expected[job.pk]
        if expected.state in (State.FAILED, State.CANCELLED):
            queueing.retry(job=job)
            expected.leave(State.QUEUED)
            expected.strikes, expected.cancel_requested = 0, False
        else:
            with pytest.raises(IllegalTransition):
                queueing.retry(job=job)

    # Two workers -------------------------------------------------------------------------------

    @precondition(lambda self: self.expected)
    @rule(worker=WORKERS, which=ANY)
    def claim(self, worker: str, which: int) -> None:
        job = self.job(which)
        waiting = self.expected[job.pk].state == State.QUEUED
        claim = queueing.claim(job_id=job.pk)
        assert (claim is not None) == waiting
        if claim is not None:
            self.note(worker, claim)

    @rule(worker=WORKERS)
    def claim_the_oldest(self, worker: str) -> None:
        waiting = [pk for pk, job in sorted(self.expected.items()) if job.state == State.QUEUED]
        claim = queueing.claim_next(queues=["sampling"])
        assert (claim.job.pk if claim else None) == (waiting[0] if waiting else None)
        if claim is not None:
            self.note(worker, claim)

    @precondition(lambda self: all(self.claims.values()))
    @rule(worker=WORKERS, which=ANY)
    def beat(self, worker: str, which: int) -> None:
        claim, expected, mine = self.held(worker, which)
        if mine:
            assert queueing.heartbeat(claim=claim) == expected.cancel_requested
            expected.overdue = False
        else:
            with pytest.raises(LostLease):
                queueing.heartbeat(claim=claim)

    @precondition(lambda self: all(self.claims.values()))
    @rule(worker=WORKERS, which=ANY, further=st.booleans())
    def write(self, worker: str, which: int, further: bool) -> None:
        claim, expected, mine = self.held(worker, which)
        try:
            with queueing.fenced(claim=claim):
                RunEvent.objects.create(
                    run=claim.job.run, attempt=claim.attempt, seq=next(self.numbers), kind="x",
                    at=BEGIN, body={},
                )  # fmt: skip
                if further:
                    queueing.got_further(claim=claim)
        except LostLease:
            assert not mine
        else:
            assert mine
            expected.strikes = 0 if further else expected.strikes

    @precondition(lambda self: all(self.claims.values()))
    @rule(worker=WORKERS, which=ANY, to=st.sampled_from(FINAL))
    def end(self, worker: str, which: int, to: str) -> None:
        claim, expected, mine = self.held(worker, which)
        if mine:
            queueing.finish(claim=claim, to=to, reason="x")
            expected.leave(to)
        else:
            with pytest.raises(LostLease):
                queueing.finish(claim=claim, to=to)

    @precondition(lambda self: all(self.claims.values()))
    @rule(worker=WORKERS, which=ANY, strike=st.booleans())
    def give_back(self, worker: str, which: int, strike: bool) -> None:
        claim, expected, mine = self.held(worker, which)
        if not mine:
            with pytest.raises(LostLease):
                queueing.give_back(claim=claim, reason="x", detail="")
        elif strike and queueing.is_last_chance(claim.job):
            queueing.finish(claim=claim, to=State.FAILED, reason="x")  # as a worker does
            expected.leave(State.FAILED)
        else:
            queueing.give_back(claim=claim, reason="x", detail="", strikes=int(strike))
            expected.leave(State.QUEUED)
            expected.strikes += strike

    @precondition(lambda self: self.expected)
    @rule(which=ANY, state=st.sampled_from(State.values), to=st.sampled_from(State.values))
    def move_as_the_table_does_not_say(self, which: int, state: str, to: str) -> None:
        job = self.job(which)
        if to not in TRANSITIONS[state]:
            with pytest.raises(IllegalTransition):
                queueing.transition(job.pk, from_state=state, to=to)
        elif self.expected[job.pk].state != state:
            assert not queueing.transition(job.pk, from_state=state, to=to)

    # Time and the reaper -----------------------------------------------------------------------

    @precondition(lambda self: self.expected)
    @rule(which=ANY)
    def time_passes(self, which: int) -> None:
        job = self.job(which)
        past = timezone.now() - timedelta(seconds=1)
        if Job.objects.filter(pk=job.pk, state=State.RUNNING).update(lease_until=past):
            self.expected[job.pk].overdue = True

    @rule()
    def reap(self) -> None:
        given_up = []
        for pk, expected in self.expected.items():
            if expected.overdue:
                expected.strikes += 1
                limit = Job._meta.get_field("max_strikes").default
                expected.leave(State.FAILED if expected.strikes >= limit else State.QUEUED)
                given_up += [pk] if expected.state == State.FAILED else []
        assert sorted(job.pk for job in queueing.reap_lost()) == sorted(given_up)

    @rule()
    def dispatch(self) -> None:
        long_ago = timezone.now() - timedelta(minutes=1)
        Job.objects.update(created_at=F("created_at") - timedelta(minutes=1), notified_at=long_ago)
        waiting = [job for job in self.expected.values() if job.state == State.QUEUED]
        assert queueing.dispatch_waiting() == len(waiting)
        assert queueing.dispatch_waiting() == 0

    # What always holds -------------------------------------------------------------------------

    @invariant()
    def jobs_stand_as_expected(self) -> None:
        for job in Job.objects.all():
            expected = self.expected[job.pk]
            assert (job.state, job.token, job.attempts, job.strikes, job.cancel_requested) == (
                expected.state,
                expected.token,
                expected.attempts,
                expected.strikes,
                expected.cancel_requested,
            )
            assert job.strikes <= job.max_strikes
            assert (job.lease_until is not None) == (job.state == State.RUNNING)

    @invariant()
    def every_move_is_in_the_table_and_begins_where_the_last_one_ended(self) -> None:
        at: dict[int, str] = dict.fromkeys(self.expected, State.QUEUED)
        for event in JobEvent.objects.order_by("pk"):
            assert event.from_state == at[event.job_id]
            assert event.to_state in TRANSITIONS[event.from_state]
            at[event.job_id] = event.to_state
        assert at == {pk: job.state for pk, job in self.expected.items()}

    @invariant()
    def an_attempt_is_open_only_while_its_job_runs(self) -> None:
        rows: dict[int, list[JobAttempt]] = {pk: [] for pk in self.expected}
        for attempt in JobAttempt.objects.order_by("number"):
            rows[attempt.job_id].append(attempt)
        for pk, expected in self.expected.items():
            attempts = rows[pk]
            assert [row.number for row in attempts] == list(range(1, expected.attempts + 1))
            running = [row.token for row in attempts if row.ended_at is None]
            assert running == ([expected.token] if expected.token else [])

    @invariant()
    def of_all_tokens_only_the_newest_may_write(self) -> None:
        for claim in itertools.chain(*self.claims.values()):
            try:
                with queueing.fenced(claim=claim):
                    may_write = True
            except LostLease:
                may_write = False
            assert may_write == (self.expected[claim.job.pk].token == claim.token)

    @invariant()
    def nothing_of_an_earlier_attempt_follows_a_later_one(self) -> None:
        newest: dict[int, int] = {}
        for run, attempt in RunEvent.objects.order_by("pk").values_list("run", "attempt"):
            assert attempt >= newest.get(run, 0)
            newest[run] = attempt


def take_steps(number: int, *, derandomize: bool) -> int:
    """Run machines of up to 50 steps until so many were taken; returns how many that was."""
    before = Queue.taken
    while Queue.taken - before < number:
        left = number - (Queue.taken - before)
        asked = settings(
            max_examples=left // STEPS_AT_ONCE + 1,
            stateful_step_count=STEPS_AT_ONCE,
            deadline=None,
            database=None,
            derandomize=derandomize,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(Queue, settings=asked)
    return Queue.taken - before


def test_a_few_hundred_steps() -> None:
    assert take_steps(300, derandomize=True) >= 300
