"""The database tests on PostgreSQL, where one answers; the whole suite follows on SQLite."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg

URL = os.environ.get("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")
FOLDERS = ["tests/accounts", "tests/annotate", "tests/contracts", "tests/training"]


def main() -> int:
    try:
        psycopg.connect(URL, connect_timeout=3).close()
    except psycopg.Error as error:
        print(f"test: skipped on PostgreSQL, none answers ({str(error).splitlines()[0]})")
        return 0
    print("test: the database tests on PostgreSQL", flush=True)
    wanted = "not model and not browser and not faults"
    command = [sys.executable, "-m", "pytest", "-q", "-m", wanted, *FOLDERS]
    return subprocess.run(command, env={**os.environ, "TEST_DATABASE_URL": URL}).returncode


if __name__ == "__main__":
    sys.exit(main())
