from __future__ import annotations

from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandParser

from rlhf_platform.broker import embedded_broker
from training.management.base import TrainingCommand
from training.services.processes import (
    STOP_GRACE_S,
    manage,
    require_port,
    running,
    stop_event,
    web,
)


class Command(TrainingCommand):
    help = "Everything on one machine: migrate, embedded broker, worker and web."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)

    def work(self, **options: Any) -> None:
        host, port = options["host"], options["port"]
        require_port(host, port)
        call_command("migrate", verbosity=0)
        stopping = stop_event()
        with (
            embedded_broker(),
            running("the worker", manage("worker")) as worker,
            running("the web", web(host, port)) as site,
        ):
            self.stdout.write(f"serving at http://{host}:{port} (Ctrl-C stops everything)")
            while not stopping.wait(1.0):
                worker.keep_alive()
                site.keep_alive()
            # A worker may take half a minute: a silent terminal invites a kill -9.
            self.stdout.write(
                f"stopping; a run at work writes a checkpoint first (at most {STOP_GRACE_S} s)"
            )
