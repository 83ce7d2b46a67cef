"""The doctor finds what is broken, says how to mend it, and never breaks itself."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from rlhf_platform.doctor import broker, database, disk, secrets
from rlhf_platform.doctor.findings import Check, Finding, examine
from tests.factories import make_project
from tests.people import People
from tests.training.rows import (
    make_attempt,
    make_checkpoint,
    make_round,
    make_run,
    make_version,
)
from training.models import Job
from training.services import checkups, queueing

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parents[2]
#: Of our migrations the last, on which no other stands.
NEWEST = max(path.stem for path in (ROOT / "training" / "migrations").glob("0*.py"))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of ours on which nobody listens while the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def doctor(folder: Path, *only: str, **environment: str) -> tuple[int, list[dict[str, str]], str]:
    """(exit status, findings, what it said on stderr) of the command in a process of its own."""
    without = {name: v for name, v in os.environ.items() if name != "DATABASE_URL"}
    done = subprocess.run(
        [sys.executable, "manage.py", "doctor", "--json", "--only", *only],
        cwd=ROOT,
        env=without | {"DATA_DIR": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout or "[]"), done.stderr


DATABASE = ("database", "database settings", "migrations", "clock")


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a whole SQLite database."""
    folder = tmp_path_factory.mktemp("migrated")
    without = {name: v for name, v in os.environ.items() if name != "DATABASE_URL"}
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v0"],
        cwd=ROOT, env=without | {"DATA_DIR": str(folder)}, check=True,
    )  # fmt: skip
    return folder


# The database -----------------------------------------------------------------------------------


def test_a_whole_database_is_well(migrated: Path) -> None:
    status, found, _ = doctor(migrated, *DATABASE, "jobs", "files")
    assert status == 0
    assert {finding["level"] for finding in found} == {"ok"}
    assert "writes ahead (WAL) and locks at once (IMMEDIATE)" in found[1]["said"]


def test_a_database_that_was_never_made(tmp_path: Path) -> None:
    status, found, said = doctor(tmp_path, *DATABASE, "jobs")
    assert status == 1
    assert "1 of 5 findings is bad" in said
    assert (found[0]["level"], found[0]["mend"]) == ("bad", "manage.py migrate makes it")
    assert {f["said"] for f in found[1:]} == {"not looked at: it needs the database"}
    assert not (tmp_path / "platform.sqlite3").exists()  # looking makes none


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("DELETE FROM django_migrations WHERE id = "
         "(SELECT max(id) FROM django_migrations WHERE app = 'training')",
         f"1 not applied: training.{NEWEST}"),
        ("DELETE FROM django_migrations WHERE app = 'training' AND name LIKE '0001%'",
         "training.0002"),
        ("DROP TABLE training_jobevent", "tables are missing: training_jobevent"),
        ("INSERT INTO django_migrations (app, name, applied) "
         "VALUES ('training', '0099_of_tomorrow', '2030-01-01')", "training.0099_of_tomorrow"),
        ("DROP TABLE django_migrations", "not applied"),
    ],
)  # fmt: skip
def test_migrations_that_do_not_fit(
    migrated: Path, tmp_path: Path, broken: str, words: str
) -> None:
    copy = tmp_path / "platform.sqlite3"
    with sqlite3.connect(migrated / "platform.sqlite3") as whole, sqlite3.connect(copy) as other:
        whole.backup(other)
        other.execute(broken)
    status, found, _ = doctor(tmp_path, "database", "migrations", "jobs")
    by_check = {finding["check"]: finding for finding in found}
    assert status == 1
    assert by_check["migrations"]["level"] == "bad"
    assert words in by_check["migrations"]["said"]
    assert by_check["migrations"]["mend"]


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "platform.sqlite3").write_text("This is a letter to grandmother." * 100)
    status, found, _ = doctor(tmp_path, "database")
    assert status == 1
    assert "does not answer: file is not a database" in found[0]["said"]


def test_a_postgres_where_nobody_listens(tmp_path: Path, closed_port: int) -> None:
    url = f"postgres://user:hunter2@127.0.0.1:{closed_port}/platform"
    status, found, said = doctor(tmp_path, *DATABASE, "jobs", DATABASE_URL=url)
    assert status == 1
    assert f"PostgreSQL database platform at 127.0.0.1:{closed_port} does not" in found[0]["said"]
    assert "start PostgreSQL, or correct DATABASE_URL" in found[0]["mend"]
    assert "hunter2" not in json.dumps(found) + said


def test_a_database_of_vectors_that_is_not_there(tmp_path: Path, closed_port: int) -> None:
    assert doctor(tmp_path, "vectors") == (0, [], "")  # nobody has set one
    url = f"postgres://user:hunter2@127.0.0.1:{closed_port}/vectors"
    status, found, said = doctor(tmp_path, "vectors", VECTORS_DATABASE_URL=url)
    assert (status, found[0]["level"]) == (1, "bad")
    assert "VECTORS_DATABASE_URL names cannot be reached" in found[0]["said"]
    assert "hunter2" not in json.dumps(found) + said


@pytest.mark.postgres
def test_a_database_of_vectors_has_pgvector_or_has_not(tmp_path: Path) -> None:
    server = os.environ.get("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")
    try:
        with psycopg.connect(server, connect_timeout=3) as connection:
            asked = "SELECT count(*) FROM pg_extension WHERE extname = 'vector'"
            (has,) = connection.execute(asked).fetchone() or (0,)
    except psycopg.Error as error:
        pytest.skip(f"no PostgreSQL answers ({str(error).splitlines()[0]})")
    status, found, _ = doctor(tmp_path, "vectors", VECTORS_DATABASE_URL=server)
    assert (status, found[0]["level"]) == ((0, "ok") if has else (1, "bad"))
    assert "CREATE EXTENSION vector" in found[0]["mend"] or has


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"DATABASE_URL": "postgres://h:port/x"}, "DATABASE_URL is no address"),
        ({"DATABASE_URL": "postgres://[::1/x"}, "DATABASE_URL is no address"),
        ({"DATABASE_URL": "mysql://x/y"}, "DATABASE_URL has the scheme 'mysql'"),
        ({"DATABASE_URL": "sqlite:////dev/null/x/db"}, "whose folder cannot be made"),
        ({"CHECKPOINT_KEEP_DAYS": "-1"}, "CHECKPOINT_KEEP_DAYS=-1 is below 0"),
    ],
)
def test_a_setting_that_cannot_be_is_named_before_anything(
    tmp_path: Path, wrong: dict[str, str], words: str
) -> None:
    status, found, said = doctor(tmp_path, "database", **wrong)
    assert (status, found) == (1, [])
    assert said.startswith("settings: ")
    assert words in said


def test_the_data_folder_may_be_a_file_or_hold_half_a_key(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert "DATA_DIR" in doctor(file, "disk")[2]
    (tmp_path / "secret_key").write_text("half")
    assert "holds no whole key" in doctor(tmp_path, "disk")[2]


@pytest.mark.django_db
def test_the_database_of_the_tests_is_well() -> None:
    found = examine([Check(name, look) for name, look in (
        ("database", database.check_database), ("settings", database.check_database_settings),
        ("migrations", database.check_migrations), ("clock", database.check_clock),
    )])  # fmt: skip
    assert [finding.level for finding in found] == ["ok"] * 4


def test_an_old_postgres_and_a_wrong_clock_are_named() -> None:
    assert database.postgres_finding(14).level == "bad"
    assert database.postgres_finding(15).level == "ok"
    levels = [database.clock_finding(ahead).level for ahead in (0.4, -2.0, 7.5)]
    assert levels == ["ok", "warning", "bad"]
    assert "2.0 s behind ours" in database.clock_finding(-2.0).said
    assert "7.5 s ahead of ours" in database.clock_finding(7.5).said


def test_a_check_that_breaks_is_a_finding_and_the_next_one_is_heard() -> None:
    def broken() -> list[Finding]:
        raise RuntimeError("of all things\nand more")

    def fine() -> list[Finding]:
        return [Finding("second", "ok", "well")]

    first, second = examine([Check("first", broken), Check("second", fine)])
    assert first.said == "the check itself broke (RuntimeError: of all things)"
    assert (first.level, second.level) == ("bad", "ok")


# Broker -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_where_nobody_listens_stops_no_work(
    scheme: str, closed_port: int, settings: Any
) -> None:
    settings.BROKER_URL = f"{scheme}://user:hunter2@127.0.0.1:{closed_port}/0"
    (found,) = broker.check_broker()
    assert found.level == "warning"
    assert "does not answer" in found.said
    assert "work goes on" in found.said
    assert "hunter2" not in found.said


def test_no_trace_of_a_client_library_is_shown(tmp_path: Path, closed_port: int) -> None:
    url = f"amqp://127.0.0.1:{closed_port}/"
    status, (found,), _ = doctor(tmp_path, "broker", BROKER_URL=url, LOG_LEVEL="DEBUG")
    assert (status, found["level"]) == (0, "warning")
    assert f"127.0.0.1:{closed_port}/ does not answer ([Errno 111]" in found["said"]


@pytest.mark.parametrize("url", ["kafka://x", "", "redis://h:port"])
def test_a_broker_that_cannot_be_is_bad(url: str, settings: Any) -> None:
    settings.BROKER_URL = url
    (found,) = broker.check_broker()
    assert found.level == "bad"
    assert "is not understood" in found.said


def test_no_broker_is_fine_and_an_embedded_one_may_be_down(settings: Any, tmp_path: Path) -> None:
    assert broker.check_broker()[0].level == "ok"  # the tests have none
    settings.BROKER_URL, settings.DATA_DIR = "embedded", tmp_path
    (found,) = broker.check_broker()
    assert (found.level, found.mend) == ("warning", "manage.py up (or worker) starts it")


# Disk and secrets -------------------------------------------------------------------------------


def test_the_data_folder_is_written_to_and_left_as_it_was(tmp_path: Path) -> None:
    (found,) = disk.look_at_folder("data folder", tmp_path)
    assert "can be written and has" in found.said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_none_or_takes_no_file_is_bad(tmp_path: Path, settings: Any) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    settings.DATA_DIR, settings.RUNS_DIR = tmp_path / "gone", file
    settings.MODEL_CACHE_DIR = Path("/proc/sys")  # takes no new file, not even from root
    found = disk.check_disk()
    assert [(f.check, f.level) for f in found] == [
        ("data folder", "bad"), ("runs folder", "bad"), ("model cache", "bad"),
    ]  # fmt: skip
    for finding, words in zip(
        found, ("does not exist", "is no folder", "cannot be written"), strict=True
    ):
        assert words in finding.said


def test_little_room_is_told_in_time(tmp_path: Path) -> None:
    levels = [disk.space_finding("d", tmp_path, free).level for free in (10**10, 2 * 10**9, 10**8)]
    assert levels == ["ok", "warning", "bad"]
    assert "manage.py prune" in disk.space_finding("d", tmp_path, 10**8).mend


def test_a_key_that_others_can_read_is_bad(tmp_path: Path, settings: Any) -> None:
    path = tmp_path / "secret_key"
    assert secrets.key_finding(path).level == "ok"  # from the environment
    path.write_text(settings.SECRET_KEY)
    path.chmod(0o644)
    found = secrets.key_finding(path)
    assert (found.level, found.mend) == ("bad", f"chmod 600 {path}")
    path.chmod(0o600)
    assert "for its owner alone" in secrets.key_finding(path).said
    path.unlink()
    path.mkdir()
    assert "cannot be read" in secrets.key_finding(path).said
    assert settings.SECRET_KEY not in str([secrets.key_finding(path), found])


@pytest.mark.parametrize(
    ("hosts", "https", "debug", "level"),
    [
        (["127.0.0.1", "localhost", "[::1]"], False, False, "ok"),
        (["label.example.org"], True, False, "ok"),
        (["label.example.org"], False, False, "warning"),
        (["*"], False, False, "warning"),
        (["label.example.org"], True, True, "bad"),
    ],
)
def test_a_public_site_without_https_is_told(
    hosts: list[str], https: bool, debug: bool, level: str, settings: Any
) -> None:
    settings.ALLOWED_HOSTS, settings.HTTPS, settings.DEBUG = hosts, https, debug
    assert secrets.https_finding().level == level


# Engine -----------------------------------------------------------------------------------------

TOLD: dict[str, Any] = {
    "versions": {"torch": "2.13.0+cu130", "peft": "0.1"},
    "broken": {},
    "device": {"cuda": "13.0", "name": "H100", "free_bytes": 8e10, "total_bytes": 8.5e10,
               "bf16": True, "computes": True},
    "bases": {"demo": {"packaged": "/p", "converts": True, "folder": None, "why": ""},
              "minilm": {"packaged": "/m", "converts": False, "folder": "/m", "why": ""}},
}  # fmt: skip


def test_the_engine_is_asked_in_a_process_of_its_own() -> None:
    found = checkups.check_engine()
    assert [finding.check for finding in found] == ["engine", "device", "base demo", "base minilm"]
    assert found[0].level == "ok"
    assert "torch" in found[0].said
    assert "torch" not in (module.split(".")[0] for module in vars(checkups))


def test_an_engine_that_does_not_start_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (found,) = checkups.check_engine()
    assert (found.level, found.said) == ("bad", "it cannot be started: status 1")


def test_other_versions_than_the_locks_are_named() -> None:
    lock = {"torch": "2.13.0", "peft": "0.21.2"}
    engine, device, demo, minilm = checkups.engine_findings(TOLD, lock)
    assert engine.said.startswith("peft 0.1 instead of 0.21.2")
    assert device.said == "H100, 80.0 of 85.0 GB free, bfloat16"
    assert (demo.level, minilm.level) == ("ok", "ok")
    assert checkups.locked(TOLD)["torch"] == "2.13.0"
    assert checkups.versions_finding(TOLD["versions"], {}).level == "ok"


def test_what_is_broken_about_the_engine_is_named() -> None:
    broken = TOLD | {"broken": {"peft": "it is not installed"}}
    assert (
        "peft cannot be imported (it is not installed)"
        in checkups.engine_findings(broken, {})[0].said
    )
    sick = checkups.device_finding(TOLD["device"] | {"computes": False, "why": "ECC error"})
    assert (sick.level, "ECC error" in sick.said) == ("bad", True)
    converted = TOLD["bases"]["demo"] | {"folder": "/c", "why": "header too small"}
    cut = checkups.base_finding("demo", converted)
    assert (cut.level, "delete /c" in cut.mend) == ("bad", True)
    whole = TOLD["bases"]["minilm"] | {"why": "header too small"}
    assert checkups.base_finding("minilm", whole).mend == checkups.INSTALL
    gone = checkups.base_finding("minilm", whole | {"packaged": None, "folder": None})
    assert (gone.level, "minilm" in gone.mend) == ("warning", True)


def test_a_converted_base_that_was_cut_is_found(tmp_path: Path) -> None:
    code = (
        "import json, os; from training.engine import selfcheck, sources\n"
        "from training.engine.rundir import sha256_of_file\n"
        "folder = sources.cache_folder() / sha256_of_file(sources.path_of('demo'))[:32]\n"
        "folder.mkdir(parents=True); (folder / 'config.json').write_text('{}')\n"
        "(folder / 'model.safetensors').write_bytes(b'\\xff' * 20)\n"
        "print(json.dumps(selfcheck.packaged_base('demo')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"ENGINE_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert checkups.base_finding("demo", told).level == "bad", done.stderr


# Jobs and files ---------------------------------------------------------------------------------


def job_findings() -> list[tuple[str, str]]:
    return [(finding.level, finding.said) for finding in checkups.check_jobs()]


def test_a_silent_worker_and_a_queue_without_one_are_named(people: People) -> None:
    run = make_run(make_round(make_project(people.workspace)), state="queued")
    assert job_findings() == [("ok", "none is stuck (0 running, 0 waiting)")]
    Job.objects.filter(pk=run.job.pk).update(created_at=timezone.now() - timedelta(minutes=2))
    ((level, said),) = job_findings()
    assert (level, said) == ("warning", f"job {run.job.pk}: waiting, and nobody is at work")
    assert queueing.claim(job_id=run.job.pk) is not None
    assert job_findings() == [("ok", "none is stuck (1 running, 0 waiting)")]
    Job.objects.filter(pk=run.job.pk).update(lease_until=timezone.now() - timedelta(minutes=2))
    ((level, said),) = job_findings()
    assert level == "bad"
    assert "the worker fell silent and no other has taken over" in said


def file_findings() -> dict[str, Finding]:
    return {finding.check: finding for finding in checkups.check_files()}


def test_rows_without_files_and_files_without_rows_are_named(
    people: People, tmp_path: Path, settings: Any
) -> None:
    settings.RUNS_DIR = tmp_path
    assert {finding.level for finding in file_findings().values()} == {"ok"}
    run = make_run(make_round(make_project(people.workspace)), state="succeeded")
    row = make_checkpoint(run, make_attempt(run.job), 3)
    version = make_version(people.workspace, "policy", kind="policy")
    adapter = tmp_path / version.adapter_path / "adapter_model.safetensors"
    adapter.parent.mkdir(parents=True)
    adapter.write_bytes(b"x")
    found = file_findings()
    assert found["adapters"].level == "ok"
    assert found["checkpoints"].level == "ok"
    assert "round-1/policy" in found["run folders"].said  # of no run: made by hand above
    adapter.unlink()
    assert f"model version {version.pk} (policy)" in file_findings()["adapters"].said
    assert file_findings()["adapters"].level == "bad"
    checkpoint = tmp_path / run.folder / row.path
    checkpoint.rename(tmp_path / "elsewhere")
    assert "1 rows whose files are gone" in file_findings()["checkpoints"].said
    make_run(run.round, stage="evaluate", state="succeeded")
    adapter.parent.rmdir()
    adapter.parent.parent.rmdir()
    assert "runs without their folder" in file_findings()["run folders"].said


# The command ------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_it_says_one_line_each_and_fails_where_something_is_bad(settings: Any) -> None:
    out = StringIO()
    call_command("doctor", "--only", "database", "broker", stdout=out)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("ok       ") and line.endswith(".") for line in lines)
    settings.BROKER_URL = "kafka://x"
    with pytest.raises(CommandError, match="1 of 1 findings is bad"):
        call_command("doctor", "--only", "broker", stdout=out)
    assert "To mend it: use embedded, none, redis://… or amqp://…." in out.getvalue()
    assert connection.is_usable()
