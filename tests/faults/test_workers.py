"""Workers that are killed, stopped and frozen: their jobs go on elsewhere, once."""

from __future__ import annotations

import signal
import time

from tests.faults.conftest import Install, Measured
from tests.faults.installation import complete, iterate_attempts, stand_in

STEPS = 12


def test_a_killed_worker_s_run_is_taken_up_by_the_next(
    install: Install, measured: Measured
) -> None:
    site = install()
    site.act("open_lab")
    (job,) = site.act("launch_samplings")
    first = site.worker(engine=stand_in(steps=STEPS, step_s=0.5))
    site.wait_for_engine()
    second = site.worker(engine=stand_in(steps=STEPS, step_s=0.5))
    killed = time.time()
    first.kill()
    site.wait_for_state(job, "succeeded", 60)
    history = site.act("history", job=job)
    waited = history["attempts"][1]["started"] - killed
    assert waited <= 10
    measured("kill -9 of a worker: taken up again", f"{waited:.1f} s", "≤ 10 s, lease 5 s")
    assert [attempt["outcome"] for attempt in history["attempts"]] == ["lost", "succeeded"]
    assert complete(history["metrics"], "loss/train", STEPS)
    assert list(iterate_attempts(history["events"])) == sorted(iterate_attempts(history["events"]))
    assert history["samples"] == 4
    second.send(signal.SIGTERM)
    assert second.wait(30) == 0
    assert site.engines() == []
