from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser
from django.db import connection

from rlhf_platform.accounts.models import Membership, Role, User, Workspace
from rlhf_platform.accounts.secrets import make_sign_in_link
from rlhf_platform.broker import embedded_broker
from training.demo.bars import Bars
from training.demo.memory_watch import MemoryWatch
from training.demo.report import Report
from training.demo.stages import Demo, run_all
from training.demo.words import readable
from training.management.base import TrainingCommand
from training.services.processes import (
    STOP_SIGNALS,
    Process,
    listening,
    manage,
    running,
    serving,
    stop_event,
)

#: Free space the demo asks for: a converted model, adapters, logs.
NEEDED_BYTES = 2_000_000_000
MARK = "this-folder-belongs-to-make-demo"
EMAIL = "you@demo.invalid"


class Command(TrainingCommand):
    help = "The whole loop on real data and a real small model; see also `make demo`."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=os.environ.get("PORT") or "8000")

    def work(self, **options: Any) -> None:
        # SystemExit unwinds the blocks below, so that worker and broker never outlive the demo.
        for number in STOP_SIGNALS:
            signal.signal(number, stop_early)
        serve = os.environ.get("SERVE", "1") != "0"
        folder = Path(settings.DATA_DIR)
        if serve:
            listening("127.0.0.1", options["port"]).close()  # said now, not after the work
        require_own_folder(folder)
        with (folder / MARK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CommandError(f"another demo is running in {folder}") from None
            if os.environ.get("FRESH") == "1":
                empty(folder)
            require_room(folder)
            call_command("migrate", verbosity=0)
            with embedded_broker(), running("the worker", manage("worker")) as worker:
                self.run_loop(folder, worker)
                if serve:
                    self.serve(options["port"], worker)

    def run_loop(self, folder: Path, worker: Process) -> None:
        workspace, _ = Workspace.objects.get_or_create(slug="demo", defaults={"name": "Demo"})
        report = Report.load(folder / "report.json")
        bars = Bars(sys.stdout)

        def show(stage: str, done: int, total: int) -> None:
            worker.keep_alive()
            bars.show(stage, done, total)

        with MemoryWatch() as memory:
            run_all(Demo(workspace, demo_person(workspace), folder, report, memory, show))
        bars.close()
        self.stdout.write("\n" + readable(report))
        self.stdout.write(f"\nreport: {report.path}\nsnapshot: {folder / 'snapshot'}")

    def serve(self, port: int, worker: Process) -> None:
        person = User.objects.get(email=EMAIL)
        link = f"http://127.0.0.1:{port}/sign-in/{make_sign_in_link(user=person)}/"
        stopping = stop_event()
        with listening("127.0.0.1", port) as listener, serving(listener) as site:
            self.stdout.write(
                f"\nServing at http://127.0.0.1:{port}. Sign in once, within a day:\n\n  {link}\n\n"
                "Ctrl-C stops everything; `make demo` serves again without repeating the work."
            )
            while not stopping.wait(1.0):
                worker.keep_alive()
                site.keep_alive()


def stop_early(number: int, _: object) -> None:
    print("\nstopping; `make demo` goes on from here", file=sys.stderr)
    sys.exit(128 + number)


def require_own_folder(folder: Path) -> None:
    """Raise CommandError for a folder that holds what no demo has put there."""
    others = [path.name for path in folder.iterdir() if path.name != "secret_key"]
    if others and not (folder / MARK).exists():
        raise CommandError(
            f"{folder} holds data that is not the demo's ({', '.join(sorted(others)[:3])}); "
            "set DATA_DIR to a new folder"
        )


def empty(folder: Path) -> None:
    """Remove all that an earlier demo has left; the caller holds its lock."""
    connection.close()
    for path in folder.iterdir():
        if path.name in (MARK, "secret_key"):
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def require_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise CommandError(
            f"the demo needs {NEEDED_BYTES / 1e9:.0f} GB in {folder}; {free / 1e9:.1f} GB are free"
        )


def demo_person(workspace: Workspace) -> User:
    """The person the printed link signs in: no password, so the link is the only way in."""
    person = User.objects.filter(email=EMAIL).first()
    if person is None:
        person = User.objects.create_user(EMAIL, name="You")
    Membership.objects.get_or_create(
        workspace=workspace, user=person, defaults={"role": Role.ADMIN}
    )
    return person
