"""Deleting checkpoints that nobody will go on from. Adapters, events and results always stay.

- A run that goes on, or waits to, keeps its newest two that verify and all of the attempt at work.
- A run that failed or was cancelled and may be tried again keeps the newest one that verifies.
- Any other run that ended keeps none.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from training.models import Run, RunCheckpoint
from training.selectors.checkpoints import (
    Found,
    checkpoints_on_disk,
    folder_size,
    is_own,
    what_is_wrong,
)
from training.selectors.logs import inside_runs
from training.services.controlling import may_retry
from training.services.queueing import FINAL

log = logging.getLogger(__name__)

#: Checkpoints that a run keeps while it may still go on by itself.
KEPT_WHILE_RUNNING = 2
#: How a checkpoint is called from the moment on from which it is no longer one.
GONE = ".gone-"


@dataclass(frozen=True)
class Removed:
    """One checkpoint that was deleted, or would be."""

    run: Run
    path: str
    size_bytes: int


def prune_checkpoints(
    *, older_than_days: int | None = None, dry_run: bool = False
) -> list[Removed]:
    """Delete the checkpoints that nobody will go on from; returns which.

    `older_than_days` replaces the setting CHECKPOINT_KEEP_DAYS, which is the number of days for
    which those of ended runs are kept (0 there: all are kept for ever). What cannot be deleted is
    logged and left for the next time.
    """
    if older_than_days is None and not settings.CHECKPOINT_KEEP_DAYS:
        return []
    days = settings.CHECKPOINT_KEEP_DAYS if older_than_days is None else older_than_days
    removed = []
    for run in runs_with_checkpoints():
        for found in to_remove(run, keep=timedelta(days=days)):
            size = folder_size(found.path)
            if dry_run or remove(run, found):
                removed.append(Removed(run, found.relative, size))
        if not dry_run:
            sweep(run)
    if not dry_run:
        note_missing()
    return removed


def runs_with_checkpoints() -> list[Run]:
    """The runs in whose folders checkpoints lie, whether or not rows know of them."""
    root = Path(settings.RUNS_DIR)
    folders = {
        "/".join(path.relative_to(root).parts[:2])
        for path in root.glob("*/*/attempts/*/checkpoints/*step-*")
    }
    found = Run.objects.filter(folder__in=folders, job__isnull=False)
    return list(found.select_related("job__round").order_by("pk"))


def to_remove(run: Run, *, keep: timedelta) -> list[Found]:
    """The checkpoints of a run that may go."""
    job, found = run.job, checkpoints_on_disk(run)
    if job.state not in FINAL:
        # The attempt at work, where there is one, deletes its own.
        at_work = job.token.hex if job.token else ""
        if all(checkpoint.token == at_work for checkpoint in found):
            return []
        kept = newest_good(found, KEPT_WHILE_RUNNING)
        if len(kept) < KEPT_WHILE_RUNNING:
            return []
        older = found[found.index(kept[-1]) + 1 :]
        return [checkpoint for checkpoint in older if checkpoint.token != at_work]
    if job.finished_at is None or job.finished_at > timezone.now() - keep:
        return []
    if may_retry(job):
        kept = newest_good(found, 1) or found[:1]
        return [checkpoint for checkpoint in found if checkpoint not in kept]
    return found


def newest_good(found: list[Found], wanted: int) -> list[Found]:
    """The newest so many that verify. One that is alone is taken as it is: nothing rests on it."""
    if len(found) <= wanted:
        return found
    return list(islice((one for one in found if not what_is_wrong(one.path)), wanted))


def remove(run: Run, found: Found) -> bool:
    """Delete one checkpoint and note it on its row. It loses its name first: none is half there."""
    beside = found.path.with_name(f"{GONE}{found.path.name}.{secrets.token_hex(4)}")
    try:
        os.replace(found.path, beside)
        run.checkpoints.filter(path=found.relative).update(removed_at=timezone.now())
        shutil.rmtree(beside)
    except OSError as error:
        log.warning("checkpoint %s could not be deleted: %s", found.path, error)
        return False
    return True


def sweep(run: Run) -> None:
    """Delete what a crash left: half-deleted checkpoints, and half-written ones of ended runs."""
    folder = inside_runs(run.folder)
    if folder is None:
        return
    pattern = ".*step-*" if run.job.state in FINAL else f"{GONE}*"
    for path in folder.glob(f"attempts/*/checkpoints/{pattern}"):
        if is_own(path, folder):
            shutil.rmtree(path, ignore_errors=True)


def note_missing() -> None:
    """Note on its row that a checkpoint is gone where its run's folder is here and it is not."""
    missing = []
    for row in RunCheckpoint.objects.filter(removed_at=None).select_related("run"):
        folder = inside_runs(row.run.folder)
        if folder is not None and not (folder / row.path).exists():
            missing.append(row.pk)
    RunCheckpoint.objects.filter(pk__in=missing).update(removed_at=timezone.now())
