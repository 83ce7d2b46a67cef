"""`make test`: what may run side by side on every core, what may by twos, then the rest alone.

Where a PostgreSQL answers, the database tests run on it as well. All run on SQLite but for those in
which the database is not the point, which then run on PostgreSQL alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from glob import glob

import psycopg

URL = os.environ.get("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")
FOLDERS = ["tests/accounts", "tests/annotate", "tests/contracts", "tests/training"]
#: What no database does otherwise: run on one of them. Pages and API endpoints call services and
#: selectors, which run on both, and the browser tests walk through the pages on SQLite.
ONCE = [
    "tests/accounts",
    *(f"tests/annotate/{name}" for name in ("api", "commands", "export", "formats", "statistics")),
    *(f"tests/training/{name}" for name in ("api", "export", "test_judge_command.py")),
    *sorted(glob("tests/annotate/test_*.py")),
    *sorted(glob("tests/training/test_*page*.py") + glob("tests/training/test_*shown.py")),
]
BESIDE = ["-m", "light", "-n", str(os.cpu_count() or 1), "--dist", "loadfile"]
#: Whole processes: browsers, servers, the engine with a real model. Two at a time wait for one
#: another less than each for itself.
BY_TWOS = ["-m", "not light and not alone and not faults", "-n", "2", "--dist", "loadfile"]
ALONE = ["-m", "alone"]


def run(title: str, arguments: list[str], **environment: str) -> int:
    """pytest's exit status."""
    print(f"test: {title}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "--durations=12", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}).returncode


def main() -> int:
    failed = 0
    left_out: list[str] = []
    try:
        psycopg.connect(URL, connect_timeout=3).close()
    except psycopg.Error as error:
        print(f"test: skipped on PostgreSQL, none answers ({str(error).splitlines()[0]})")
    else:
        title = "the database tests on PostgreSQL"
        failed = run(title, [*BESIDE, *FOLDERS], TEST_DATABASE_URL=URL)
        left_out = [f"--ignore={path}" for path in ONCE]
    failed = run("what may run side by side, on SQLite", [*BESIDE, *left_out]) or failed
    failed = run("browser and flows, two at a time", BY_TWOS) or failed
    return run("what watches processes and clocks, alone", ALONE) or failed


if __name__ == "__main__":
    sys.exit(main())
