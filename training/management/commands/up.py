from __future__ import annotations

import socket
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandParser

from rlhf_platform.broker import embedded_broker
from training.management.base import TrainingCommand
from training.services.processes import (
    STOP_GRACE_S,
    listening,
    manage,
    running,
    serving,
    stop_event,
)


class Command(TrainingCommand):
    help = "Everything on one machine: migrate, embedded broker, worker and web."
    #: They load every page, which this process, alive for as long as the site, never serves.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)

    def work(self, **options: Any) -> None:
        host, port = options["host"], options["port"]
        with listening(host, port) as listener:
            call_command("migrate", verbosity=0, skip_checks=True)
            self.run(listener, f"http://{host}:{port}")

    def run(self, listener: socket.socket, address: str) -> None:
        stopping = stop_event()
        with (
            embedded_broker(),
            running("the worker", manage("worker")) as worker,
            serving(listener) as site,
        ):
            self.stdout.write(f"serving at {address} (Ctrl-C stops everything)")
            while not stopping.wait(1.0):
                worker.keep_alive()
                site.keep_alive()
            # A worker may take half a minute: a silent terminal invites a kill -9.
            self.stdout.write(
                f"stopping; a run at work writes a checkpoint first (at most {STOP_GRACE_S} s)"
            )
