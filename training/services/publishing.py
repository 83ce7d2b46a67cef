"""Pushing snapshots and model versions to the Hub: as a job for the button, or at once."""

from __future__ import annotations

import functools
import logging
import tempfile
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db import transaction

from annotate.errors import AnnotateError, HubRefused, HubUnreachable, PushStopped
from annotate.export.hub import Patience, push_folder
from annotate.export.pushes import Push, Pushed, require_repo_name
from annotate.export.writers import FORMATS, export_snapshot
from annotate.models import Snapshot
from rlhf_platform.accounts.models import Workspace
from training.errors import LostLease
from training.export.writers import require_trained, write_model_folder
from training.models import Job, ModelVersion
from training.services import queueing
from training.services.leases import AWAY, Lease
from training.services.queueing import Claim
from training.services.supervising import when_it_answers

log = logging.getLogger(__name__)

#: Where the dataset card names the place to load from (annotate/export/card.py).
PLACE = "PATH_OR_REPO"


def queue_snapshot_push(
    *, snapshot: Snapshot, repo: str, public: bool = False, format: str = "parquet"
) -> Job:
    """A queued push of a snapshot; the waiting or running one where the same was asked before."""
    require_repo_name(repo)
    if format not in FORMATS:
        raise HubRefused(f"format {format!r} is none of {', '.join(FORMATS)}")
    asked = {"snapshot": snapshot.pk, "repo": repo, "public": public, "format": format}
    return queue_push(Job.Kind.PUSH_SNAPSHOT, snapshot, asked)


def queue_model_push(*, version: ModelVersion, repo: str, public: bool = False) -> Job:
    """A queued push of a model version. Raises HubRefused for a base or an impossible name."""
    require_repo_name(repo)
    require_trained(version)
    asked = {"version": version.pk, "repo": repo, "public": public}
    return queue_push(Job.Kind.PUSH_MODEL, version, asked)


def queue_push(kind: str, thing: Snapshot | ModelVersion, asked: dict[str, Any]) -> Job:
    with transaction.atomic():
        # Two presses of the button take turns, and the second finds the first one's job.
        Workspace.objects.select_for_update(no_key=True).get(pk=thing.workspace_id)
        same = {f"payload__{key}": value for key, value in asked.items()}
        running = Job.objects.filter(
            kind=kind, state__in=[Job.State.QUEUED, Job.State.RUNNING], **same
        ).first()
        return running or queueing.enqueue(
            kind=kind,
            queue=Job.Queue.DEFAULT,
            workspace=thing.workspace,
            payload={**asked, "push": uuid.uuid4().hex},
        )


def push_snapshot(
    *,
    snapshot: Snapshot,
    repo: str,
    public: bool = False,
    format: str = "parquet",
    patience: Patience | None = None,
) -> Pushed:
    """Push a snapshot now: data files and card in one commit."""
    with tempfile.TemporaryDirectory(prefix="push-") as folder:
        push = snapshot_folder(Path(folder), snapshot, repo, public, format, uuid.uuid4().hex)
        return push_folder(push=push, patience=patience)


def push_model(
    *,
    version: ModelVersion,
    repo: str,
    public: bool = False,
    patience: Patience | None = None,
) -> Pushed:
    """Push a model version now: its weights, tokenizer, card and lineage in one commit."""
    with tempfile.TemporaryDirectory(prefix="push-") as folder:
        push = model_folder(Path(folder), version, repo, public, uuid.uuid4().hex)
        return push_folder(push=push, patience=patience)


def snapshot_folder(
    folder: Path, snapshot: Snapshot, repo: str, public: bool, format: str, push_id: str
) -> Push:
    require_repo_name(repo)
    written = export_snapshot(snapshot=snapshot, folder=folder / "snapshot", format=format)
    card = written / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace(PLACE, repo), encoding="utf-8")
    return Push(
        folder=written,
        repo=repo,
        repo_type="dataset",
        title=f"Snapshot {snapshot.number} of {snapshot.project.slug} ({snapshot.sha256[:12]})",
        public=public,
        id=push_id,
    )


def model_folder(
    folder: Path, version: ModelVersion, repo: str, public: bool, push_id: str
) -> Push:
    require_repo_name(repo)
    written = write_model_folder(version=version, folder=folder / "model", repo=repo)
    return Push(
        folder=written,
        repo=repo,
        repo_type="model",
        title=f"{version.name} ({version.digest[:12]})",
        public=public,
        id=push_id,
    )


def prepare_snapshot(job: Job, folder: Path) -> Push:
    snapshot = Snapshot.objects.get(pk=job.payload["snapshot"], workspace=job.workspace)
    asked = job.payload
    return snapshot_folder(
        folder, snapshot, asked["repo"], asked["public"], asked["format"], asked["push"]
    )


def prepare_model(job: Job, folder: Path) -> Push:
    version = ModelVersion.objects.get(pk=job.payload["version"], workspace=job.workspace)
    asked = job.payload
    return model_folder(folder, version, asked["repo"], asked["public"], asked["push"])


PREPARE: dict[str, Callable[[Job, Path], Push]] = {
    Job.Kind.PUSH_SNAPSHOT: prepare_snapshot,
    Job.Kind.PUSH_MODEL: prepare_model,
}


def execute_push(
    *, claim: Claim, stopping: threading.Event, patience: Patience | None = None
) -> None:
    """Do a claimed push and record what came of it. Raises LostLease where it is no longer ours.

    Trouble that may pass is waited out within the attempt (eight tries in all), so that a job that
    has failed stays so until a person asks again.
    """
    with Lease(claim, stopping) as lease:
        end = try_push(claim, lease, stopping, patience)
        lease.check()
        when_it_answers(end, stopping=stopping)


def try_push(
    claim: Claim, lease: Lease, stopping: threading.Event, patience: Patience | None
) -> Callable[[], None]:
    """Push, and return the write that records what came of it."""
    finish = functools.partial(queueing.finish, claim=claim)
    fail = functools.partial(finish, to=Job.State.FAILED)
    try:
        with tempfile.TemporaryDirectory(prefix="push-") as folder:
            prepare = functools.partial(PREPARE[claim.job.kind], claim.job, Path(folder))
            push = when_it_answers(prepare, stopping=stopping)
            pushed = push_folder(push=push, patience=patience, stop=lease.interrupt)
    except PushStopped as stopped:
        return functools.partial(end_stopped, claim, stopping, str(stopped))
    except HubUnreachable as error:
        return functools.partial(fail, reason="network", detail=str(error))
    except AnnotateError as error:
        return functools.partial(fail, reason="refused", detail=str(error))
    except (LostLease, *AWAY):
        raise
    except OSError as error:
        detail = f"what is pushed could not be written: {error}; free space, then try again"
        return functools.partial(fail, reason="disk", detail=detail)
    except Exception as error:  # the worker's loop must outlive any one push
        log.exception("job %s could not be pushed", claim.job.pk)
        detail = f"this is a fault of ours, see the worker's log: {type(error).__name__}"
        return functools.partial(fail, reason="bug", detail=detail)
    return functools.partial(finish, to=Job.State.SUCCEEDED, outcome=pushed.as_dict())


def end_stopped(claim: Claim, stopping: threading.Event, detail: str) -> None:
    if stopping.is_set():
        queueing.give_back(claim=claim, reason="preempted", detail="interrupted; pushed again soon")
    else:
        queueing.finish(claim=claim, to=Job.State.CANCELLED, reason="cancelled", detail=detail)
