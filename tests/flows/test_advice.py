"""The advisor's numbers from the real engine: texts measured under a base, by a worker."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.engine.tiny import save_tiny
from tests.people import People
from training.engine.domain import GENERAL
from training.models import Job
from training.services import queueing
from training.services.measuring import execute_measurement, queue_measurement


def done(job: Job) -> Job:
    claim = queueing.claim_next(queues=[Job.Queue.SAMPLING])
    assert claim is not None
    execute_measurement(claim=claim, stopping=threading.Event())
    job.refresh_from_db()
    return job


@pytest.mark.django_db(transaction=True)
def test_texts_are_measured_under_a_base(people: People, tmp_path: Path) -> None:
    base = str(save_tiny(tmp_path / "tiny"))
    general = GENERAL.read_text(encoding="utf-8")
    job = done(queue_measurement(workspace=people.workspace, source=base, text=general))
    assert job.state == Job.State.SUCCEEDED, job.detail
    assert job.outcome is not None
    assert job.outcome["base"] == base
    # The enclosed text compared with itself.
    assert job.outcome["distance"] == 0.0
    assert job.outcome["own"]["tokens"] == job.outcome["general"]["tokens"] > 512
    assert job.payload["texts"] == []

    short = done(queue_measurement(workspace=people.workspace, source=base, text="too short"))
    assert (short.state, short.reason) == (Job.State.FAILED, "refused")
    assert "512 are the least" in short.detail
