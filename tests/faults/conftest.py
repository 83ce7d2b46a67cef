from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.faults.installation import REPOSITORY, Installation
from tests.faults.servers import PostgreSQL, Redis, can_run_postgres, running

#: What the tests measured: (what, value with unit, pass mark), shown at the end.
FIGURES = pytest.StashKey[list[tuple[str, str, str]]]()


class Measured(Protocol):
    """Notes a figure for the table at the end of the session."""

    def __call__(self, what: str, value: str, mark: str) -> None: ...


class Install(Protocol):
    """A migrated installation; see Installation for the arguments."""

    def __call__(self, **options: Any) -> Installation: ...


class Databases(Protocol):
    """A migrated database of a kind, as `install` takes it: "sqlite" or "postgres" (our own)."""

    def __call__(self, kind: str) -> str | None: ...


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    figures = config.stash[FIGURES]
    if not figures:
        return
    terminalreporter.section("faults: what was measured")
    width = max(len(what) for what, _, _ in figures)
    for what, value, mark in figures:
        terminalreporter.write_line(f"{what:<{width}}  {value:<24}  {mark}")


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    def note(what: str, value: str, mark: str) -> None:
        request.config.stash[FIGURES].append((what, value, mark))

    return note


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with every table, to be copied."""
    folder = tmp_path_factory.mktemp("migrated")
    path = folder / "platform.sqlite3"
    migrate(folder, f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQL]:
    """A PostgreSQL of our own with a migrated template; a test may stop it and start it again."""
    if reason := can_run_postgres():
        pytest.skip(reason)
    with running(PostgreSQL) as server, tempfile.TemporaryDirectory() as folder:
        migrate(Path(folder), server.create("migrated"))
        yield server


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny base for the real engine."""
    from tests.engine.tiny import save_tiny  # torch is only loaded where an engine is wanted

    return str(save_tiny(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def redis_server() -> Iterator[Redis]:
    with running(Redis) as server:
        yield server


@pytest.fixture
def install(migrated_file: Path) -> Iterator[Install]:
    """Makes installations in folders with short names, and ends all that runs in them."""
    made: list[Installation] = []
    folders: list[Path] = []

    def make(*, database: str | None = None, **options: Any) -> Installation:
        # A socket's path is short, pytest's own folders are not.
        folder = Path(tempfile.mkdtemp(prefix="faults-"))
        folders.append(folder)
        if database is None:
            copy = shutil.copy(migrated_file, folder / "platform.sqlite3")
            database = f"sqlite:///{copy}"
        made.append(Installation(folder, database=database, **options))
        return made[-1]

    yield make
    for installation in made:
        installation.close()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def databases(request: pytest.FixtureRequest) -> Databases:
    def make(kind: str) -> str | None:
        if kind == "sqlite":
            return None
        server: PostgreSQL = request.getfixturevalue("postgres")
        return server.create(f"faults_{uuid.uuid4().hex[:12]}", template="migrated")

    return make


def migrate(folder: Path, database: str) -> None:
    installation = Installation(folder, database=database)
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "manage.py"), "migrate", "--verbosity", "0"],
        env=installation.environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
