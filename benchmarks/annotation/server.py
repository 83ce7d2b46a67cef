"""The platform as it is shipped, on a database of its own, and what its processes use."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg

from benchmarks.annotation.pairs import ROOT

DATABASE = "bench_annotation"
START_S = 90
SETTINGS = (
    "server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_level",
    "shared_buffers", "max_connections", "max_wal_size", "jit",
)  # fmt: skip


@contextmanager
def database(url: str) -> Iterator[str]:
    """The address of an empty database on that server; dropped afterwards."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {DATABASE}")
        try:
            yield urlsplit(url)._replace(path=f"/{DATABASE}").geturl()
        finally:
            admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")


def settings_of(url: str) -> dict[str, str]:
    """What decides how fast and how safe that PostgreSQL is."""
    with psycopg.connect(url) as connection:
        return {name: str(connection.execute(f"SHOW {name}").fetchone()[0]) for name in SETTINGS}  # type: ignore[index]


@contextmanager
def platform(port: int, folder: Path) -> Iterator[psutil.Process]:
    """`manage.py up`, as `make run` starts it, ready to answer."""
    log = folder / "up.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--port", str(port)],
            cwd=ROOT,
            env=os.environ | {"LOG_LEVEL": "WARNING"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + START_S
        while not answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"bench: the platform did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def answers(port: int, path: str = "/readyz") -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def tree(top: psutil.Process) -> list[psutil.Process]:
    return [top, *top.children(recursive=True)]


def memory_mb(top: psutil.Process) -> float:
    """Proportional set size of all processes together, in MB of 2^20 bytes."""
    total = 0
    for process in tree(top):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total / 2**20


def web_cpu_s(top: psutil.Process) -> float:
    """Processor seconds that the web's processes have used so far."""
    web = [process for process in tree(top) if "gunicorn" in " ".join(process.cmdline())]
    return sum(map(cpu_s, web))


def database_cpu_s(url: str) -> float:
    """Processor seconds of the whole PostgreSQL server, other databases' too; 0 where it is remote.

    Connections come and go: those that ended are in their parent's account.
    """
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(row[0] if row else 0).parent()
            return sum(map(cpu_s, tree(parent))) + ended_s(parent) if parent else 0.0
    return 0.0


def ended_s(parent: psutil.Process) -> float:
    times = parent.cpu_times()
    return float(times.children_user + times.children_system)


def cpu_s(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0
