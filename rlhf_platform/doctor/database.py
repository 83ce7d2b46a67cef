"""The database: does it answer, is it the one this code needs, and what time is it there?"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from django.apps import apps
from django.db import DatabaseError, connection
from django.db.migrations.exceptions import InconsistentMigrationHistory
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from rlhf_platform.doctor.findings import PATIENCE_S, Finding, first_line, shortly

LEAST_POSTGRES = 15
#: Seconds between two clocks that leases and pages bear, and that they do not.
CLOCK_OFF_S, CLOCK_WRONG_S = 1.0, 5.0


def check_database() -> list[Finding]:
    """Does it answer, and which one is it?"""
    wanted = connection.settings_dict
    if connection.vendor == "sqlite" and not in_memory() and not Path(wanted["NAME"]).exists():
        said = f"there is none yet at {wanted['NAME']}"
        return [Finding("database", "bad", said, "manage.py migrate makes it")]
    if connection.vendor == "postgresql":
        wanted["OPTIONS"].setdefault("connect_timeout", PATIENCE_S)
    try:
        with connection.cursor() as cursor:
            # The second question reads the file: a SQLite that is none only says so then.
            cursor.execute("SELECT 1")
            if connection.vendor == "sqlite":
                cursor.execute("SELECT count(*) FROM sqlite_master")
    except (DatabaseError, OSError, ValueError) as error:
        said = f"{database_name()} does not answer: {first_line(error)}"
        return [Finding("database", "bad", said, how_to_reach_it())]
    return [Finding("database", "ok", f"{database_name()} answers")]


def in_memory() -> bool:
    name = str(connection.settings_dict["NAME"])
    return name == ":memory:" or "mode=memory" in name


def database_name() -> str:
    wanted = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"SQLite at {wanted['NAME']}"
    where = f"{wanted['HOST'] or 'the local socket'}:{wanted['PORT'] or 5432}"
    return f"PostgreSQL database {wanted['NAME']} at {where}"


def how_to_reach_it() -> str:
    if connection.vendor == "sqlite":
        return "put the file back, or name another one in DATABASE_URL; then manage.py migrate"
    return "start PostgreSQL, or correct DATABASE_URL (host, port, name, user, password)"


def check_database_settings() -> list[Finding]:
    """What two writers need of SQLite, and the version that PostgreSQL must have."""
    if connection.vendor == "postgresql":
        with connection.cursor():
            version = connection.pg_version  # type: ignore[attr-defined]
        return [postgres_finding(version // 10_000)]
    if in_memory():
        return [Finding("database settings", "ok", "SQLite in memory, for tests")]
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        journal = str(cursor.fetchone()[0]).lower()
    mode = str(connection.settings_dict["OPTIONS"].get("transaction_mode", "DEFERRED")).upper()
    if journal != "wal" or mode != "IMMEDIATE":
        said = f"journal mode {journal}, transactions {mode}: two writers will lock each other out"
        mend = (
            "the folder must be on a local disk that this user may write to (WAL does not work on "
            "network shares); or use PostgreSQL"
        )
        return [Finding("database settings", "bad", said, mend)]
    said = "SQLite writes ahead (WAL) and locks at once (IMMEDIATE)"
    return [Finding("database settings", "ok", said)]


def postgres_finding(version: int) -> Finding:
    if version < LEAST_POSTGRES:
        said = f"PostgreSQL {version} is older than {LEAST_POSTGRES}"
        return Finding("database settings", "bad", said, f"move to {LEAST_POSTGRES} or newer")
    return Finding("database settings", "ok", f"PostgreSQL {version}")


def check_migrations() -> list[Finding]:
    """Is every migration applied, none unknown, and every table there?"""
    executor = MigrationExecutor(connection)
    loader = executor.loader
    try:
        loader.check_consistent_history(connection)
    except InconsistentMigrationHistory as error:
        mend = "restore the database from a backup: its list of migrations was edited"
        return [Finding("migrations", "bad", first_line(error), mend)]
    waiting = [
        f"{m.app_label}.{m.name}" for m, _ in executor.migration_plan(loader.graph.leaf_nodes())
    ]
    if waiting:
        said = f"{len(waiting)} not applied: {shortly(waiting)}"
        return [Finding("migrations", "bad", said, "stop web and worker, then manage.py migrate")]
    ours = {app.label for app in apps.get_app_configs()}
    unknown = sorted(
        f"{app}.{name}"
        for app, name in loader.applied_migrations
        if app in ours and (app, name) not in loader.disk_migrations
    )
    if unknown:
        said = f"the database knows {shortly(unknown)}, this code does not"
        mend = "run the newer version of the code that made it, or another database"
        return [Finding("migrations", "bad", said, mend)]
    there = set(connection.introspection.table_names())
    missing = sorted(
        {model._meta.db_table for model in apps.get_models() if model._meta.managed} - there
    )
    if missing:
        said = f"all applied, and yet tables are missing: {shortly(missing)}"
        return [Finding("migrations", "bad", said, "restore the database from a backup")]
    return [Finding("migrations", "ok", f"all {len(loader.applied_migrations)} applied")]


def check_clock() -> list[Finding]:
    """Does the database's clock, by which leases are counted, agree with this machine's?"""
    if connection.vendor != "postgresql":
        return [Finding("clock", "ok", "the database uses this machine's clock")]
    before = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        theirs: datetime = cursor.fetchone()[0]
    halfway = before + (timezone.now() - before) / 2
    return [clock_finding((theirs - halfway).total_seconds())]


def clock_finding(ahead_s: float) -> Finding:
    """`ahead_s`: how far the database's clock is ahead of ours."""
    off = abs(ahead_s)
    if off < CLOCK_OFF_S:
        return Finding("clock", "ok", f"{off:.2f} s from the database's")
    said = f"the database's clock is {off:.1f} s {'ahead of' if ahead_s > 0 else 'behind'} ours"
    mend = "set both by a time server (systemd-timesyncd, chrony): leases go by the database's"
    return Finding("clock", "bad" if off >= CLOCK_WRONG_S else "warning", said, mend)
