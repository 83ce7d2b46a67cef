"""An installation in a folder of its own: data, database, broker, and every process of it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.faults.servers import listens
from training.engine.tether import die_with_parent
from training.services.processes import listening, web

REPOSITORY = Path(__file__).resolve().parents[2]
#: Seconds of the lease where a test does not say otherwise: short, and longer than a busy machine
#: keeps a heartbeat waiting.
LEASE_S = 5
#: Seconds that starting a Django process may take on a busy machine.
START_S = 60.0

Found = TypeVar("Found")


class ActFailed(AssertionError):
    """Raised when a person's act met an error; says which."""


class PersonGone(Exception):
    """Raised when the process in which people act has ended."""


class Running:
    """A process of the installation, with what it wrote."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: dict[str, str],
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=REPOSITORY,
                start_new_session=True,
                pass_fds=pass_fds,
                preexec_fn=die_with_parent,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self, words: str) -> bool:
        return words in self.log.read_text(encoding="utf-8", errors="replace")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, within_s: float) -> int:
        """Its exit status. Raises TimeoutExpired."""
        return self.process.wait(within_s)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Person:
    """The process of tests.faults.acts: one act at a time, each with a bound."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: dict[str, str],
        pass_fds: Sequence[int] = (),
    ) -> None:
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                cwd=REPOSITORY,
                start_new_session=True,
                pass_fds=pass_fds,
                preexec_fn=die_with_parent,
            )

    def act(self, name: str, arguments: dict[str, Any], within_s: float) -> Any:
        """What the act gave. Raises ActFailed, or PersonGone where the process died over it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = json.dumps({"act": name, "arguments": arguments}).encode() + b"\n"
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except BrokenPipeError:
            raise PersonGone(name) from None
        ready, _, _ = select.select([self.process.stdout], [], [], within_s)
        if not ready:
            raise ActFailed(f"{name} gave nothing within {within_s:.0f} s")
        answer = self.process.stdout.readline()
        if not answer:
            raise PersonGone(name)
        reply = json.loads(answer)
        if "error" in reply:
            raise ActFailed(f"{name}: {reply['error']}")
        return reply["gave"]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Installation:
    """Everything a test needs of one platform; `close` ends whatever was started for it."""

    def __init__(
        self, folder: Path, *, database: str, broker: str = "none", lease_s: int | None = LEASE_S
    ) -> None:
        """`lease_s` None leaves the setting as it is shipped."""
        self.folder = folder
        self.runs = folder / "runs"
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in ("JOB_LEASE_S", "HF_ENDPOINT", "TEST_DATABASE_URL")
        }
        self.environment = kept | {
            "DJANGO_SETTINGS_MODULE": "rlhf_platform.settings",
            "DATA_DIR": str(folder),
            "DATABASE_URL": database,
            "BROKER_URL": broker,
            "LOG_LEVEL": "INFO",
            "PYTHONUNBUFFERED": "1",
        }
        if lease_s is not None:
            self.environment["JOB_LEASE_S"] = str(lease_s)
        self.lease_s = lease_s or 30
        (folder / "logs").mkdir(exist_ok=True)
        self._started: list[Running] = []
        self._person: Person | None = None

    # Processes ----------------------------------------------------------------------------------

    def start(self, name: str, command: Sequence[str], pass_fds: Sequence[int] = ()) -> Running:
        log = self.folder / "logs" / f"{len(self._started)}-{name}.txt"
        process = Running(command, log, self.environment, pass_fds)
        self._started.append(process)
        return process

    def manage(self, *arguments: str) -> list[str]:
        return [sys.executable, str(REPOSITORY / "manage.py"), *arguments]

    def worker(
        self, *, engine: Sequence[str] | None = None, crash: tuple[str, Path] | None = None
    ) -> Running:
        """A worker that is up. Without `engine` the real one is its child; `crash` arms a point."""
        worker = self.start("worker", self.worker_command(engine=engine, crash=crash))
        self.wait_until(lambda: worker.said("worker on "), START_S, "the worker is up")
        return worker

    def worker_command(
        self, *, engine: Sequence[str] | None = None, crash: tuple[str, Path] | None = None
    ) -> list[str]:
        if engine is None and crash is None:
            return self.manage("worker")
        command = [sys.executable, "-m", "tests.faults.worker"]
        if engine is not None:
            command += ["--engine", json.dumps(list(engine))]
        if crash is not None:
            command += ["--crash", crash[0], "--flag", str(crash[1])]
        return command

    def web(self, port: int) -> Running:
        """The site, as `manage.py up` starts it."""
        with listening("127.0.0.1", port) as listener:
            process = self.start("web", web(listener), [listener.fileno()])
        self.wait_until(lambda: listens(port), START_S, "the web listens")
        return process

    def logs(self, name: str) -> list[Path]:
        """What the processes of a name wrote, in the order in which they were started."""
        found = (self.folder / "logs").glob(f"*-{name}.txt")
        return sorted(found, key=lambda path: int(path.name.partition("-")[0]))

    def processes(self) -> list[psutil.Process]:
        """What lives and belongs here: by its environment, or by a folder of ours in its words.

        The engine's children do not have the environment, and are found by their run folder.
        """
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        folder = str(self.folder)
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            if any(folder in word for word in process.cmdline()):
                return True
            return process.environ().get("DATA_DIR") == folder
        except psutil.Error:
            return False  # it has just ended, or is somebody else's

    def engines(self) -> list[psutil.Process]:
        """The children that live now and work on a run."""
        return [
            process
            for process in self.processes()
            if "--heartbeat-fd" in words_of(process) and "run" in words_of(process)
        ]

    # People -------------------------------------------------------------------------------------

    def act(self, name: str, *, within_s: float = 60.0, **arguments: Any) -> Any:
        """Have a person do something; the first act starts their process."""
        if self._person is None:
            self._person = self.person()
        return self._person.act(name, arguments, within_s)

    def person(self, crash: tuple[str, Path] | None = None) -> Person:
        command = [sys.executable, "-m", "tests.faults.acts"]
        if crash is not None:
            command += ["--crash", crash[0], "--flag", str(crash[1])]
        return Person(command, self.folder / "logs" / "people.txt", self.environment)

    @property
    def person_pid(self) -> int:
        assert self._person is not None
        return self._person.process.pid

    def job(self, job: int) -> dict[str, Any]:
        found: dict[str, Any] = next(row for row in self.act("jobs") if row["id"] == job)
        return found

    # Waiting ------------------------------------------------------------------------------------

    def wait_until(self, check: Callable[[], Found | None], within_s: float, what: str) -> Found:
        """What `check` gives once it is true. Raises AssertionError that says how things stand.

        An act that fails (the database may be away on purpose) counts as not yet.
        """
        deadline = time.monotonic() + within_s
        last = ""
        while time.monotonic() < deadline:
            try:
                found = check()
            except ActFailed as error:
                found, last = None, str(error)
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"not within {within_s:.0f} s: {what}. {last}\n{self.report()}")

    def wait_for_state(self, job: int, state: str, within_s: float) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            row = self.job(job)
            return row if row["state"] == state else None

        return self.wait_until(there, within_s, f"job {job} is {state}")

    def wait_for_engine(self, within_s: float = 30.0) -> psutil.Process:
        return self.wait_until(
            lambda: next(iter(self.engines()), None), within_s, "an engine is at work"
        )

    def report(self) -> str:
        """Jobs, processes and the ends of all logs, for a test that failed."""
        try:
            jobs = "\n".join(str(row) for row in self.act("jobs", within_s=10))
        except (ActFailed, PersonGone) as error:
            jobs = f"jobs cannot be read: {error}"
        lines = [jobs, *(f"{p.pid}: {' '.join(words_of(p))[-200:]}" for p in self.processes())]
        for path in sorted((self.folder / "logs").iterdir()):
            lines.append(f"--- {path.name}")
            lines.append(path.read_text(encoding="utf-8", errors="replace")[-2500:])
        return "\n".join(lines)

    def close(self) -> None:
        if self._person is not None:
            self._person.close()
        for process in self._started:
            process.kill()
        for left in self.processes():
            try:
                left.send_signal(signal.SIGKILL)
                left.wait(10)
            except psutil.NoSuchProcess:
                continue


def words_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def is_gone(process: psutil.Process) -> bool:
    """Whether it has ended; one that nobody has waited for yet does nothing any more either."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def stand_in(*, steps: int = 3, step_s: float = 0.0, deaf: bool = False) -> list[str]:
    """The command of a stand-in for the engine."""
    options = ["--steps", str(steps), "--step-s", str(step_s), *(["--deaf"] if deaf else [])]
    return [sys.executable, "-m", "tests.faults.stand_in", *options]


def crashing_engine(point: str, flag: Path) -> list[str]:
    """The command of the real engine with a point armed at which it dies."""
    return [sys.executable, "-m", "tests.faults.crashing", point, str(flag), "training.engine"]


def complete(metrics: Sequence[dict[str, Any]], name: str, steps: int) -> bool:
    """Whether a curve has each step from 1 on exactly once."""
    return sorted(row["step"] for row in metrics if row["name"] == name) == [*range(1, steps + 1)]


def late_rows(history: dict[str, Any]) -> int:
    """Rows of an earlier attempt that were stored after the first row of a later one."""
    late = 0
    for kind in ("events", "checkpoints"):
        newest = 0
        for row in history[kind]:  # in the order of their storing
            late += row["attempt"] < newest
            newest = max(newest, row["attempt"])
    return late


def newest_points(history: dict[str, Any]) -> dict[tuple[str, int], tuple[int, float]]:
    """What the curves must hold: each point as the last attempt that came to it had it."""
    return {
        (name, event["body"]["step"]): (event["attempt"], value)
        for event in history["events"]
        for name, value in event["body"].get("values", {}).items()
    }


def points(history: dict[str, Any]) -> dict[tuple[str, int], tuple[int, float]]:
    """What the curves do hold."""
    return {
        (row["name"], row["step"]): (row["attempt"], row["value"]) for row in history["metrics"]
    }
