"""What the next comparison costs in queues of 1,000 to 1,000,000, on PostgreSQL and SQLite.

In each queue one person has judged the first 30 %, which others are still wanted for: the worst
place to be. Measured is submit and next, as the services do them, in this process; beside the time
what the search itself touches: rows and buffers by PostgreSQL's EXPLAIN ANALYZE (plans are kept in
var/bench/growth), steps of SQLite's virtual machine. Rows are filled in by SQL; a size that cannot
be filled in time is left out and said so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.annotation.pairs import ROOT
from benchmarks.annotation.server import cpu_s, database

PLANS = ROOT / "var" / "bench" / "growth"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
#: The share that the person has judged; judgments that are timed, after some that are not.
JUDGED = 0.3
TIMED, WARM = 100, 10
OVERLAP = 3
#: Seconds for filling, on either database; and rows filled in one statement.
FILL_S = 150
CHUNK = 100_000
#: Prompts, each with two responses, that the comparisons share: the search reads one of them.
PROMPTS = 1_000
#: Free disk that a million comparisons may need at the most, in bytes.
DISK = 4 * 2**30
#: What the largest queue may cost of what the smallest does.
REACH = 1.5

SERIES = {
    "postgresql": "SELECT n FROM generate_series({first}, {last}) AS numbers(n)",
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers"
    " WHERE n < {last}) SELECT n FROM numbers",
}
#: A draw from 0 to KEYS.
DRAW = {"postgresql": "(random() * 1e18)::bigint", "sqlite": "abs(random()) % 1000000000000000000"}
KEYS = 10**18
UNCHECKED = {
    "postgresql": "SET session_replication_role = replica",
    "sqlite": "PRAGMA foreign_keys = OFF",
}
CHECKED = {"postgresql": "RESET session_replication_role", "sqlite": "PRAGMA foreign_keys = ON"}


def main() -> None:
    """Prints a row per size. Needs a database of its own, which it migrates and fills."""
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    started = time.monotonic()
    for size in SIZES:
        left = FILL_S - (time.monotonic() - started)
        row: dict[str, Any]
        try:
            project, person = fill(size, left)
        except TimeoutError as error:
            row = {"database": connection.vendor, "comparisons": size, "left out": str(error)}
        else:
            row = measure(size, project, person)
        print(json.dumps(row), flush=True)


def fill(size: int, left_s: float) -> tuple[Any, Any]:
    """A project with so many comparisons, and the person who judged the first of them.

    Raises TimeoutError, for a full disk too.
    """
    from django.db import connection

    from annotate.models import Annotator, Comparison, Participation, Prompt
    from annotate.services.projects import create_project
    from rlhf_platform.accounts.members import add_member
    from rlhf_platform.accounts.models import Role, Workspace

    if shutil.disk_usage(ROOT).free < DISK and size > CHUNK:
        raise TimeoutError(f"less than {DISK >> 30} GB of disk are free")
    deadline = time.monotonic() + left_s
    workspace, _ = Workspace.objects.get_or_create(slug="main", defaults={"name": "Main"})
    slug = f"growth-{size}"
    project = create_project(workspace=workspace, slug=slug, name=slug, overlap=OVERLAP)
    user = add_member(
        workspace=workspace, email=f"{slug}@example.org", role=Role.ANNOTATOR
    ).membership.user
    person = Annotator.objects.create(workspace=workspace, user=user, kind=Annotator.Kind.MEMBER)
    w, p, who = workspace.pk, project.pk, person.pk
    cut = int(KEYS * JUDGED)
    with connection.cursor() as cursor:
        cursor.execute(UNCHECKED[connection.vendor])
        if not Prompt.objects.exists():
            fill_prompts(cursor, w)
        prompt = Prompt.objects.order_by("pk").values_list("pk", flat=True)[0]
        for first in range(0, size, CHUNK):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not filled within {FILL_S} s")
            numbers = SERIES[connection.vendor].format(
                first=first, last=min(first + CHUNK, size) - 1
            )
            draw = DRAW[connection.vendor]
            cursor.execute(f"""
                INSERT INTO annotate_comparison (workspace_id, project_id, prompt_id, response_a_id,
                    response_b_id, known_label, digest, origin, origin_reference, priority,
                    random_key, slots, created_at)
                SELECT {w}, {p}, {prompt} + n % {PROMPTS}, 2 * (n % {PROMPTS}) + 1,
                    2 * (n % {PROMPTS}) + 2, '', 'filled ' || n, 'import', '', 0, key,
                    CASE WHEN key < {cut} THEN {OVERLAP - 1} ELSE {OVERLAP} END, CURRENT_TIMESTAMP
                FROM (SELECT n, {draw} AS key FROM ({numbers}) AS n) AS drawn""")
        cursor.execute(f"""
            INSERT INTO annotate_assignment (workspace_id, comparison_id, annotator_id, state,
                swapped, "order", sides_ahead, screen_version, leased_at, shown_at, expires_at,
                skip_reason, skip_note, is_repeat)
            SELECT {w}, id, {who}, 'judged', false, '[]', '', 1, CURRENT_TIMESTAMP,
                CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, '', '', false
            FROM annotate_comparison WHERE project_id = {p} AND random_key < {cut}
            ORDER BY random_key""")
        cursor.execute(f"""
            INSERT INTO annotate_judgment (workspace_id, comparison_id, annotator_id, assignment_id,
                answer, label, swapped, rationale, details, idempotency_key, body_digest,
                created_at, is_repeat)
            SELECT {w}, comparison_id, {who}, id, 'a', '', false, '', '{{}}',
                'filled ' || comparison_id, '', CURRENT_TIMESTAMP, false
            FROM annotate_assignment WHERE annotator_id = {who}""")
        cursor.execute(CHECKED[connection.vendor])
        cursor.execute("ANALYZE")
    # As serving leaves it: within a few dozen of where they are.
    judged = Comparison.objects.filter(project=project, random_key__lt=cut).order_by("-random_key")
    Participation.objects.create(
        workspace=workspace, project=project, annotator=person,
        search_priority=0, search_key=judged.values_list("random_key", flat=True)[31],
    )  # fmt: skip
    return project, person


def fill_prompts(cursor: Any, workspace: int) -> None:
    """Prompts of one sentence, and responses 1, 2, 3, … of about 800 characters."""
    from django.db import connection

    numbers = SERIES[connection.vendor].format(first=0, last=PROMPTS - 1)
    cursor.execute(f"""
        INSERT INTO annotate_prompt (workspace_id, messages, digest, created_at)
        SELECT {workspace}, '[{{"role": "user", "content": "What is it?"}}]', 'filled ' || n,
            CURRENT_TIMESTAMP FROM ({numbers}) AS n""")
    for side in (1, 2):
        cursor.execute(f"""
            INSERT INTO annotate_response (id, workspace_id, prompt_id, text, digest, created_at)
            SELECT 2 * n + {side}, {workspace}, (SELECT MIN(id) FROM annotate_prompt) + n,
                '{"It is a sentence. " * 44}' || n, 'filled {side} ' || n, CURRENT_TIMESTAMP
            FROM ({numbers}) AS n""")


def measure(size: int, project: Any, person: Any) -> dict[str, Any]:
    from django.db import connection

    from annotate.services.judging import submit_judgment
    from annotate.services.serving import next_assignment

    seconds, processor, backend = [], [], 0.0
    held = next_assignment(project=project, annotator=person)
    for number in range(WARM + TIMED):
        if number == WARM:
            backend = backend_cpu_s()
        assert held is not None, "the queue is not empty"
        before, used = time.perf_counter(), time.process_time()
        submit_judgment(
            assignment=held, annotator=person, answer="left", idempotency_key=f"timed {number}"
        )
        held = next_assignment(project=project, annotator=person)
        if number >= WARM:
            seconds.append(time.perf_counter() - before)
            processor.append(time.process_time() - used)
    backend = backend_cpu_s() - backend
    submit_judgment(assignment=held, annotator=person, answer="left", idempotency_key="last")
    return {
        "database": connection.vendor,
        "comparisons": size,
        "judged": int(size * JUDGED),
        "submit and next ms": round(1000 * median(seconds), 2),
        "CPU ms": round(1000 * sum(processor) / len(processor), 2),
        "PostgreSQL CPU ms": round(1000 * backend / TIMED, 2),
        "search": explained(size, project, person),
    }


def backend_cpu_s() -> float:
    """Processor seconds of the server process behind our connection; 0 on SQLite, or where it is
    on another machine."""
    from django.db import connection

    if connection.vendor == "sqlite":
        return 0.0
    with connection.cursor() as cursor, suppress(psutil.NoSuchProcess):
        cursor.execute("SELECT pg_backend_pid()")
        return cpu_s(psutil.Process(cursor.fetchone()[0]))
    return 0.0


@contextmanager
def caught() -> Iterator[list[tuple[str, Any]]]:
    """The statements that are sent within the block."""
    from django.db import connection

    found: list[tuple[str, Any]] = []

    def catch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        found.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(catch):
        yield found


def explained(size: int, project: Any, person: Any) -> dict[str, int]:
    """What the statements of `next` touch that only read; the plans of large queues are kept."""
    from django.db import connection, transaction

    from annotate.services.serving import next_assignment

    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    with transaction.atomic():
        connection.ensure_connection()
        if connection.vendor == "sqlite":
            connection.connection.set_progress_handler(step, 1)
        with caught() as statements:
            next_assignment(project=project, annotator=person)
        if connection.vendor == "sqlite":
            connection.connection.set_progress_handler(None, 0)
        transaction.set_rollback(True)
    reads = [(sql, params) for sql, params in statements if sql.startswith("SELECT")]
    explain = {
        "postgresql": "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ",
        "sqlite": "EXPLAIN QUERY PLAN ",
    }
    plans: list[Any] = []
    # In one transaction, as they are sent: the first sets how the planner reads the queue.
    with transaction.atomic(), connection.cursor() as cursor:
        for sql, params in reads:
            cursor.execute(explain[connection.vendor] + sql, params)
            plans += [row[0] if len(row) == 1 else row[-1] for row in cursor.fetchall()]
        transaction.set_rollback(True)
    PLANS.mkdir(parents=True, exist_ok=True)
    if size >= 100_000:
        kept = PLANS / f"{connection.vendor}-{size}.json"
        kept.write_text(json.dumps(plans, indent=1) + "\n")
    if connection.vendor == "sqlite":
        return {"steps": steps}
    plans = [json.loads(plan) if isinstance(plan, str) else plan for plan in plans]
    return {
        "rows": sum(rows_of(plan[0]["Plan"]) for plan in plans),
        "buffers": sum(
            plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
            for plan in plans
        ),
    }


def rows_of(node: dict[str, Any]) -> int:
    """Rows that the plan's scans read, those that a filter removed included."""
    scans = "Scan" in node["Node Type"]
    seen = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    own = int(seen * node["Actual Loops"]) if scans else 0
    return own + sum(rows_of(child) for child in node.get("Plans", []))


def growth(url: str) -> Iterator[dict[str, Any]]:
    """A row per size on both databases, as each is finished."""
    with database(url) as own, tempfile.TemporaryDirectory(prefix="bench-") as name:
        for address in (own, f"sqlite:///{Path(name) / 'growth.sqlite3'}"):
            yield from apart(address, name)


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What the largest queue costs of the smallest, where both were measured."""
    figures = {}
    for vendor in ("postgresql", "sqlite"):
        cost = {
            row["comparisons"]: row["submit and next ms"]
            for row in rows
            if row["database"] == vendor and "left out" not in row
        }
        if SIZES[0] in cost and SIZES[-1] in cost:
            figures[f"1M / 1k comparisons, {vendor}"] = cost[SIZES[-1]] / cost[SIZES[0]]
    return figures


def apart(address: str, folder: str) -> Iterator[dict[str, Any]]:
    """In a process of its own: Django keeps to one database."""
    settings = {"DATABASE_URL": address, "DATA_DIR": folder, "BROKER_URL": "none"}
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.annotation.growth"],
        cwd=ROOT,
        env=os.environ | settings | {"LOG_LEVEL": "WARNING"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield from map(json.loads, process.stdout)
    if process.returncode:
        sys.exit(f"bench: filling or measuring {address.partition(':')[0]} failed")


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "rlhf_platform.settings"
    import django

    django.setup()
    main()
