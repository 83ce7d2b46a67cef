from __future__ import annotations

import signal
from typing import Any

import dramatiq
from django.core.management.base import CommandError, CommandParser

from rlhf_platform.broker import embedded_broker
from training.actors import broker
from training.management.base import TrainingCommand
from training.models import Job
from training.services.working import Worker


class Command(TrainingCommand):
    help = "Run queued jobs: training and sampling one at a time, all else beside them."
    #: They load every page, which a worker never serves.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--queues", default=",".join(Job.Queue.values), help="%(default)s")

    def work(self, **options: Any) -> None:
        queues = [name.strip() for name in options["queues"].split(",") if name.strip()]
        unknown = sorted(set(queues) - set(Job.Queue.values))
        if unknown or not queues:
            raise CommandError(
                f"unknown queues {', '.join(unknown) or '(none)'}; "
                f"known: {', '.join(Job.Queue.values)}"
            )
        worker = Worker(queues)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stopping.set())
        with embedded_broker():
            # dramatiq's own threads only receive wake-ups, so two of them are plenty.
            listener = dramatiq.Worker(broker, queues=set(queues), worker_threads=2)
            listener.start()
            worker.start()
            self.stdout.write(f"worker on {', '.join(queues)}; Ctrl-C stops it")
            worker.stopping.wait()
            worker.stop()
            listener.stop()
