"""`make bench-annotation`: 1, 8 and 32 annotators over HTTP.

The platform is started with the shipped command on a PostgreSQL at its default durability
(TEST_POSTGRES_URL); 2,000 real pairs, overlap 3. What is stored is counted at the end: nothing may
be lost, stored twice, or served to more people than wanted. Then growth.py: what the next
comparison costs in queues of 1,000 to 1,000,000. Rows go to var/bench/annotation.json as they
finish; exit 1 where a figure misses what it should reach, or was not measured. ONLY=crowds or
ONLY=growth does one part.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.annotation.crowd import judge, percentile
from benchmarks.annotation.growth import REACH as GROWTH
from benchmarks.annotation.growth import growth, ratios
from benchmarks.annotation.pairs import PAIRS, ROOT, unanswered_pairs
from benchmarks.annotation.server import (
    database,
    database_cpu_s,
    memory_mb,
    platform,
    settings_of,
    web_cpu_s,
)

OUT = ROOT / "var" / "bench" / "annotation.json"
URL = os.environ.get("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")
PORT = 8765
OVERLAP = 3
#: Annotators, and how many judgments they make; None: until the queue is empty for everybody.
CROWDS = ((1, 400), (8, 1200), (32, None))
#: Label Studio 1.23 did 5.4 to 7.2 judgments a second with 32 annotators on the same machine.
REACH = {
    "judgments/s with 32": (">=", 120.0),
    "submit and next p95 with 1 (ms)": ("<=", 20.0),
    "submit and next p95 with 32 (ms)": ("<=", 400.0),
    "SQL statements per judgment": ("<=", 8.0),
    "web CPU per judgment with 32 (ms)": ("<=", 10.0),
    "memory, summed PSS (MB)": ("<=", 350.0),
    "lost, doubled, over-served, short": ("<=", 0.0),
    "1M / 1k comparisons, postgresql": ("<=", GROWTH),
    "1M / 1k comparisons, sqlite": ("<=", GROWTH),
}


def one_more(email: str) -> str:
    """A new annotator's token."""
    from rlhf_platform.accounts.members import add_member
    from rlhf_platform.accounts.models import Role, Workspace
    from rlhf_platform.accounts.secrets import make_api_token

    workspace = Workspace.objects.get(slug="main")
    user = add_member(workspace=workspace, email=email, role=Role.ANNOTATOR).membership.user
    return make_api_token(user=user, workspace=workspace, name="bench")


def set_up(crowd: int) -> tuple[str, list[str]]:
    """A project of its own with the pairs, and its annotators' tokens: (slug, tokens)."""
    from annotate.services.ingest import store_pairs
    from annotate.services.projects import create_project
    from rlhf_platform.accounts.models import Workspace

    workspace, _ = Workspace.objects.get_or_create(slug="main", defaults={"name": "Main"})
    slug = f"crowd-{crowd}"
    project = create_project(workspace=workspace, slug=slug, name=slug, overlap=OVERLAP)
    store_pairs(project=project, records=unanswered_pairs())
    return slug, [one_more(f"annotator-{crowd}-{n}@example.org") for n in range(crowd)]


def stored(slug: str, keys: list[str], *, emptied: bool) -> dict[str, int]:
    """What is wrong with what the database holds, beside what the annotators were told."""
    from annotate.models import Assignment, Comparison, Judgment

    rows = list(
        Judgment.objects.current()
        .filter(comparison__project__slug=slug)
        .values_list("idempotency_key", "comparison_id", "annotator_id")
    )
    held: dict[int, int] = dict.fromkeys(
        Comparison.objects.filter(project__slug=slug).values_list("pk", flat=True), 0
    )
    for (comparison,) in Assignment.objects.filter(
        comparison__project__slug=slug, state__in=Assignment.HOLDING
    ).values_list("comparison_id"):
        held[comparison] += 1
    return {
        "lost": len(set(keys) - {key for key, _, _ in rows}),
        "doubled": len(rows) - len({(comparison, who) for _, comparison, who in rows}),
        "over-served": sum(count > OVERLAP for count in held.values()),
        "short": sum(count < OVERLAP for count in held.values()) if emptied else 0,
    }


def statements(judgments: int = 20) -> float:
    """SQL statements of a submit with its next, counted in this process; no BEGIN, no COMMIT."""
    from django.db import connection
    from django.test import Client

    slug, _ = set_up(0)
    token = one_more("counted@example.org")
    client = Client(headers={"Authorization": f"Bearer {token}", "Host": "127.0.0.1"})
    served = post(client, f"/projects/{slug}/next", {})
    counted = 0

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal counted
        counted += 1
        return execute(sql, params, many, context)

    for number in range(judgments):
        body = {"answer": "left", "idempotency_key": f"counted-{number}"}
        with connection.execute_wrapper(count):
            served = post(client, f"/assignments/{served['id']}/judgment", body)["next"]
    return counted / judgments


def post(client: Any, path: str, body: dict[str, Any]) -> Any:
    reply = client.post(f"/api/v1{path}", json.dumps(body), content_type="application/json")
    if reply.status_code not in (200, 201):
        sys.exit(f"bench: {path} answered {reply.status_code}: {reply.content!r}")
    return reply.json()


def crowds(url: str, folder: Path, report: dict[str, Any]) -> dict[str, float]:
    """A row per crowd into the report; gives the figures that have something to reach."""
    figures = {"SQL statements per judgment": statements()}
    rows = report["crowds"] = []
    with platform(PORT, folder) as server:
        for crowd, judgments in CROWDS:
            slug, tokens = set_up(crowd)
            # So that every connection is open, and every class loaded, before anything is timed.
            judge(PORT, tokens, slug, judgments=2 * crowd, name="warm")
            web, base = web_cpu_s(server), database_cpu_s(url)
            tally = judge(PORT, tokens, slug, judgments=judgments)
            count = len(tally.keys)
            row = {
                "annotators": crowd,
                "judgments": count,
                "judgments/s": count / tally.seconds,
                "next p50": percentile(tally.next_s, 50),
                "next p95": percentile(tally.next_s, 95),
                "submit and next p50": percentile(tally.submit_s, 50),
                "submit and next p95": percentile(tally.submit_s, 95),
                "web CPU ms": 1000 * (web_cpu_s(server) - web) / count,
                "PostgreSQL CPU ms": 1000 * (database_cpu_s(url) - base) / count,
                "PSS MB": memory_mb(server),
                "errors": len(tally.errors),
                **stored(slug, tally.keys, emptied=judgments is None),
            }
            rows.append(row)
            print(json.dumps(row), *tally.errors[:3], flush=True)
            write(report)
    first, last = rows[0], rows[-1]
    figures["judgments/s with 32"] = last["judgments/s"]
    figures["submit and next p95 with 1 (ms)"] = first["submit and next p95"]
    figures["submit and next p95 with 32 (ms)"] = last["submit and next p95"]
    figures["web CPU per judgment with 32 (ms)"] = last["web CPU ms"]
    figures["memory, summed PSS (MB)"] = max(row["PSS MB"] for row in rows)
    wrong = ("errors", "lost", "doubled", "over-served", "short")
    figures["lost, doubled, over-served, short"] = sum(row[name] for row in rows for name in wrong)
    return figures


def write(report: dict[str, Any]) -> None:
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(report, indent=1) + "\n")


def judged(report: dict[str, Any]) -> dict[str, float]:
    """The crowds' figures, from a platform on a database of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, database(URL) as url:
        os.environ |= {
            "DATABASE_URL": url,
            "DATA_DIR": name,
            "BROKER_URL": "embedded",
            "LOG_LEVEL": "WARNING",
            "DJANGO_SETTINGS_MODULE": "rlhf_platform.settings",
        }
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        figures = crowds(url, Path(name), report)
        from django.db import connections

        connections.close_all()
    return figures


def main() -> int:
    report: dict[str, Any] = {
        "postgresql": settings_of(URL),
        "pairs": PAIRS,
        "overlap": OVERLAP,
        "cores": os.cpu_count(),
        "load before": os.getloadavg(),
    }
    print(json.dumps(report), flush=True)
    only = os.environ.get("ONLY", "crowds growth").split()
    figures: dict[str, float] = {}
    if "crowds" in only:
        figures |= judged(report)
    if "growth" in only:
        rows = report["growth"] = []
        for row in growth(URL):
            rows.append(row)
            print(json.dumps(row), flush=True)
            write(report)
        figures |= ratios(rows)
    missed = []
    parts = {name: "growth" if name.startswith("1M") else "crowds" for name in REACH}
    for name, (relation, bound) in REACH.items():
        if parts[name] not in only:
            continue
        value = figures.get(name)
        good = value is not None and (value >= bound if relation == ">=" else value <= bound)
        missed += [] if good else [name]
        said = "not measured" if value is None else f"{value:.4g}"
        print(f"{name}: {said} ({relation} {bound:g}{'' if good else ', MISSED'})")
    report |= {"figures": figures, "missed": missed}
    write(report)
    print(f"written to {OUT.relative_to(ROOT)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
