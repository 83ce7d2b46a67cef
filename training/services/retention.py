"""Deleting checkpoints and judgings that nobody will go on from. Adapters, events and results of
runs always stay.

- A run that goes on, or waits to, keeps its newest two that verify and all of the attempt at work.
- A run that failed or was cancelled and may be tried again keeps the newest one that verifies.
- Any other run that ended keeps none.
- A judging that failed or was cancelled keeps its folder while its judge has yet to judge something
  that was asked and answered there: another try, or the next judging, takes that along.
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
from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from django.utils import timezone

from annotate.selectors.judges import unjudged
from training.engine.config_judge import ANSWERS
from training.models import Job, JobAttempt, Run, RunCheckpoint
from training.selectors.checkpoints import (
    Found,
    checkpoints_on_disk,
    folder_size,
    is_own,
    what_is_wrong,
)
from training.selectors.logs import inside_runs
from training.services.controlling import may_retry
from training.services.judging_jobs import folder_of, parties
from training.services.machine_judging import read_lines
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


@dataclass(frozen=True)
class RemovedJudging:
    """The folder of one judging that was deleted, or would be."""

    job: Job
    #: Relative to the data folder.
    path: str
    size_bytes: int


def kept_for(older_than_days: int | None) -> timedelta | None:
    """For how long what has ended is kept; None: for ever."""
    if older_than_days is None and not settings.CHECKPOINT_KEEP_DAYS:
        return None
    days = settings.CHECKPOINT_KEEP_DAYS if older_than_days is None else older_than_days
    return timedelta(days=days)


def prune_checkpoints(
    *, older_than_days: int | None = None, dry_run: bool = False
) -> list[Removed]:
    """Delete the checkpoints that nobody will go on from; returns which.

    `older_than_days` replaces the setting CHECKPOINT_KEEP_DAYS, which is the number of days for
    which those of ended runs are kept (0 there: all are kept for ever). What cannot be deleted is
    logged and left for the next time.
    """
    keep = kept_for(older_than_days)
    if keep is None:
        return []
    removed = []
    for run in runs_with_checkpoints():
        # Hashing the runs before this one took its time: somebody may have tried it again.
        run.job.refresh_from_db(fields=["state", "token", "finished_at"])
        for found in to_remove(run, keep=keep):
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
    """Delete what a crash left: half-deleted checkpoints, and half-written ones of dead attempts.

    Whether an attempt has ended does not change again, as the state of its job does.
    """
    folder = inside_runs(run.folder)
    if folder is None:
        return
    tokens = JobAttempt.objects.filter(job=run.job, ended_at__isnull=False)
    dead = {token.hex for token in tokens.values_list("token", flat=True)}
    for path in folder.glob("attempts/*/checkpoints/.*step-*"):
        over = path.name.startswith(GONE) or path.parts[-3] in dead
        if over and is_own(path, folder):
            shutil.rmtree(path, ignore_errors=True)


def note_missing() -> None:
    """Note on its row that a checkpoint is gone where its run's folder is here and it is not."""
    missing = []
    for row in RunCheckpoint.objects.filter(removed_at=None).select_related("run"):
        folder = inside_runs(row.run.folder)
        if folder is not None and not (folder / row.path).exists():
            missing.append(row.pk)
    RunCheckpoint.objects.filter(pk__in=missing).update(removed_at=timezone.now())


def prune_judgings(
    *, older_than_days: int | None = None, dry_run: bool = False
) -> list[RemovedJudging]:
    """Delete the folders of judgings from which none will go on; returns which.

    Days as for `prune_checkpoints`. What cannot be deleted is logged and left for the next time.
    """
    keep = kept_for(older_than_days)
    if keep is None:
        return []
    removed = []
    for job in judgings_with_folders():
        folder = folder_of(job)
        with transaction.atomic():
            # With the row held nobody can try it again between the look and the new name.
            held = Job.objects.select_for_update().get(pk=job.pk)
            if is_wanted(held, folder, keep=keep):
                continue
            found = RemovedJudging(held, f"{folder.parent.name}/{folder.name}", tree_size(folder))
            try:
                if not dry_run:
                    folder.rename(folder.with_name(f"{GONE}{folder.name}.{secrets.token_hex(4)}"))
            except OSError as error:
                log.warning("judging %s could not be deleted: %s", folder, error)
                continue
        removed.append(found)
    if not dry_run:
        for renamed in Path(settings.DATA_DIR, "judging").glob(f"{GONE}*"):
            shutil.rmtree(renamed, ignore_errors=True)
    return removed


def judgings_with_folders() -> list[Job]:
    """The judging jobs whose folders lie on this machine; those of the command are not jobs."""
    root = Path(settings.DATA_DIR, "judging").resolve()
    names = (path.name.removeprefix("job-") for path in root.glob("job-*") if is_own(path, root))
    numbers = [int(name) for name in names if name.isdecimal()]
    return list(Job.objects.filter(kind=Job.Kind.JUDGE, pk__in=numbers).order_by("pk"))


def is_wanted(job: Job, folder: Path, *, keep: timedelta) -> bool:
    """Whether a judging's folder stays: it goes on, ended lately, or would be gone on from."""
    if job.state not in FINAL:
        return True
    if job.finished_at is None or job.finished_at > timezone.now() - keep:
        return True
    if not may_retry(job) or not any(folder.glob(f"attempts/*/{ANSWERS}")):
        return False
    try:
        judge, project = parties(job)
        asked = {row["id"] for row in read_lines(folder / "data" / "comparisons.jsonl")}
    except ObjectDoesNotExist:
        return False  # nobody can go on from it
    except (OSError, ValueError, KeyError, TypeError):
        return True  # its replies may still be good
    left = unjudged(project=project, judge=judge).order_by().values_list("digest", flat=True)
    return not asked.isdisjoint(left.iterator())


def tree_size(folder: Path) -> int:
    """Bytes of the files in a folder and all below it."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
