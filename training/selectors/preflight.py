"""What is wrong with the rows a run trains on: before a launch by their text, then by tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.core.cache import cache

from annotate.export.writers import snapshot_lines
from annotate.models import Project, Snapshot, SnapshotRow
from training.engine.inspection import EXAMPLES, inspect_labelled, inspect_pairs
from training.models import Run

#: Rows of a split that are looked at before a launch. Their order is that of their hashes, so the
#: first are a fair draw; flaws that need two rows are then found less often.
INSPECTED = 20_000
REMEMBERED_S = 24 * 3600
LEVELS = {"refuse": 0, "warn": 1, "ok": 2}


@dataclass(frozen=True)
class Check:
    """One finding as pages and the API show it."""

    code: str
    level: str
    count: int
    of: int
    message: str
    todo: str
    examples: list[str]


@dataclass(frozen=True)
class Preflight:
    """The checks of a snapshot's rows or of a run's, what needs a person first."""

    checks: list[Check]
    #: Rows looked at, and rows there are; both 0 where a run's engine looked at all of its own.
    rows: int = 0
    of: int = 0
    seconds: float | None = None

    @property
    def loud(self) -> list[Check]:
        return [check for check in self.checks if check.level != "ok"]

    @property
    def quiet(self) -> list[Check]:
        return [check for check in self.checks if check.level == "ok"]

    @property
    def refused(self) -> bool:
        return any(check.level == "refuse" for check in self.checks)


def snapshot_preflight(*, snapshot: Snapshot) -> Preflight:
    """What the text of a snapshot's rows tells, without a tokenizer; computed once, as it never
    changes."""
    key = f"preflight:{snapshot.pk}:{snapshot.sha256}"
    found: Preflight | None = cache.get(key)
    if found is None:
        splits = [read_rows(snapshot, split) for split in SnapshotRow.Split.values]
        labels = snapshot.project.kind == Project.Kind.LABELS
        inspect = inspect_labelled if labels else inspect_pairs
        checks = [as_check(finding.as_json()) for finding in inspect(*splits)]
        found = Preflight(
            checks=sorted_checks([check for check in checks if check is not None]),
            rows=sum(map(len, splits)),
            of=snapshot.n_train + snapshot.n_test,
        )
        cache.set(key, found, REMEMBERED_S)
    return found


def read_rows(snapshot: Snapshot, split: str) -> list[dict[str, Any]]:
    lines = snapshot_lines(snapshot=snapshot, split=split)
    return [json.loads(line) for line in islice(lines, INSPECTED)]


def run_preflight(run: Run) -> Preflight | None:
    """What the engine's newest attempt found in the rows; None before it looked."""
    event = run.events.filter(kind="preflight").order_by("-attempt", "-seq").first()
    if event is None:
        return None
    listed, seconds = event.body.get("findings"), event.body.get("seconds")
    checks = [as_check(each) for each in listed] if isinstance(listed, list) else []
    return Preflight(
        checks=sorted_checks([check for check in checks if check is not None]),
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
    )


def as_check(finding: Any) -> Check | None:
    """A finding as an engine wrote it; None for what is none."""
    if not isinstance(finding, dict) or finding.get("level") not in LEVELS:
        return None
    counts = [finding.get("count"), finding.get("of")]
    examples = finding.get("examples")
    return Check(
        code=str(finding.get("code", "")),
        level=finding["level"],
        count=counts[0] if isinstance(counts[0], int) else 0,
        of=counts[1] if isinstance(counts[1], int) else 0,
        message=str(finding.get("message", "")),
        todo=str(finding.get("todo", "")),
        examples=[str(e) for e in examples[:EXAMPLES]] if isinstance(examples, list) else [],
    )


def sorted_checks(checks: list[Check]) -> list[Check]:
    return sorted(checks, key=lambda check: LEVELS[check.level])
