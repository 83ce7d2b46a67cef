"""dramatiq's actors: a message wakes the worker of its process, which looks at the job table.

An actor holds a message for microseconds. What is claimed and run is decided by the worker's own
loops (training.services.working), so a lost, repeated or forged message does no harm.
"""

from __future__ import annotations

import dramatiq
from dramatiq import Actor

from rlhf_platform.broker import install_broker
from training.models import Job
from training.services.wakeups import wakeups

broker = install_broker()


def _wake(job_id: int) -> None:
    wakeups.set()


#: The wake-up actor of each queue.
WAKE: dict[str, Actor[[int], None]] = {
    str(queue): dramatiq.actor(actor_name=f"wake_{queue}", queue_name=str(queue))(_wake)
    for queue in Job.Queue.values
}
