"""A judging as a job of the queue: asked for on a page, done by a worker, resumed after a kill.

Its folder holds the comparisons that were asked for and every reply so far. Judgments are stored in
one transaction with the job's end, so none are before it. The address of a judge is one that a
person typed: it passes the gate of `rlhf_platform.http`, and the engine is told the addresses that
passed, so that a name which changes its answer afterwards gets no connection.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from annotate.errors import AnnotateError
from annotate.models import JudgeVersion, Project
from annotate.selectors.judges import unjudged
from annotate.services.labels import require_kind
from annotate.services.machine_judging import store_machine_judgments
from annotate.services.walls import check_one_workspace
from rlhf_platform import environment
from rlhf_platform.accounts.models import Workspace
from training.engine.config_judge import ADDRESSES, ANSWERS, KEY
from training.errors import CannotLaunch
from training.models import Job
from training.services import queueing
from training.services.children import Child
from training.services.executing import (
    ENGINE,
    EXIT_INTERRUPTED,
    EXIT_NO_SPACE,
    no_space,
    set_aside,
    why_it_died,
)
from training.services.forwarding import is_count, read_result
from training.services.leases import Lease
from training.services.machine_judging import config_of, read_lines, row_of, write_folder
from training.services.queueing import Claim
from training.services.supervising import Ending, supervise, when_it_answers

log = logging.getLogger(__name__)

#: Bytes at the end of an events file in which its newest progress is looked for.
TAIL = 65_536
#: What a progress event says that is shown: counts of comparisons, tokens, and money.
SHOWN = ("step", "total_steps", "flipped", "failed", "tokens")
GOES_ON = "interrupted; it goes on without asking anything twice"


def queue_judging(
    *,
    judge: JudgeVersion,
    project: Project,
    limit: int | None = None,
    by_people: bool = False,
    bounds: Mapping[str, Any] | None = None,
    key: str = "",
) -> Job:
    """A queued judging of what this version has not judged; the running one if it was asked alike.

    key: name of the environment variable that holds the server's key (`JUDGE_KEYS`).
    Raises CannotLaunch for bounds, a key or an address that cannot be, for nothing left to judge,
    and while another judging by this version in this project goes on; WrongKind for a project of
    anything but comparisons.
    """
    check_one_workspace(judge, project)
    require_kind(project, Project.Kind.COMPARISONS)
    config_of(judge, bounds or {})
    require_outgoing(judge, key)
    asked = {
        "project": project.pk,
        "judge": judge.pk,
        "limit": limit,
        "by_people": by_people,
        "bounds": dict(bounds or {}),
        "key": key,
    }
    with transaction.atomic():
        # Two presses of the button take turns, and the second finds the first one's job.
        Workspace.objects.select_for_update(no_key=True).get(pk=project.workspace_id)
        running = judgings(judge=judge, project=project).exclude(state__in=queueing.FINAL).first()
        if running is not None and running.payload == asked:
            return running
        if running is not None:
            raise CannotLaunch(
                f"{judge} is judging in {project} already (job {running.pk}); "
                "wait for it, or cancel it"
            )
        if not unjudged(project=project, judge=judge, by_people=by_people).exists():
            which = "that people judged " if by_people else ""
            raise CannotLaunch(f"{judge} has judged every comparison {which}in {project}")
        local = judge.settings.get("url") is None
        return queueing.enqueue(
            kind=Job.Kind.JUDGE,
            queue=Job.Queue.SAMPLING if local else Job.Queue.JUDGING,
            workspace=project.workspace,
            payload=asked,
        )


def judgings(*, judge: JudgeVersion, project: Project) -> Any:
    """The jobs of one version in one project, the newest first."""
    return Job.objects.filter(
        kind=Job.Kind.JUDGE,
        workspace=project.workspace_id,
        payload__judge=judge.pk,
        payload__project=project.pk,
    ).order_by("-pk")


def known_keys() -> dict[str, str]:
    """host:port of the one server that each key may be sent to, by its variable's name."""
    pairs = (entry.partition("=") for entry in settings.JUDGE_KEYS)
    return {name.strip(): place.strip().lower() for name, _, place in pairs}


def require_outgoing(judge: JudgeVersion, key: str) -> list[str]:
    """The addresses of the judge's server; none for a local base, or while its name is unknown.

    Raises CannotLaunch for an address that is private and that no admin listed, and for a key that
    is unknown or another server's.
    """
    import httpcore2  # with the module below what the web pays only where it is asked

    from rlhf_platform import http

    url = judge.settings.get("url")
    if url is None:
        if key:
            raise CannotLaunch("a judge on this machine takes no key")
        return []
    place = http.host_and_port(url)
    if key and known_keys().get(key) != place.lower():
        raise CannotLaunch(
            f"key {key!r} is not for {place}; an admin lists it with JUDGE_KEYS={key}={place}"
        )
    try:
        return http.checked_addresses(urlsplit(url).hostname or "", int(place.rpartition(":")[2]))
    except http.OutgoingRefused as error:
        raise CannotLaunch(f"{url} is not asked: {error}") from error
    except httpcore2.ConnectError:
        return []


def outgoing(judge: JudgeVersion, key: str) -> dict[str, str]:
    """What the engine's process is given to reach the judge's server; nothing for a local base.

    Raises CannotLaunch as above, and where name or key are missing on this machine.
    """
    addresses = require_outgoing(judge, key)
    if judge.settings.get("url") is None:
        return {}
    if not addresses:
        raise CannotLaunch(f"{judge.settings['url']}: this machine finds no host of that name")
    given = {ADDRESSES: " ".join(addresses)}
    if key:
        try:
            secret = environment.text(key).strip()
        except ImproperlyConfigured as error:
            raise CannotLaunch(f"the key cannot be had: {error}") from error
        if not secret:
            raise CannotLaunch(f"the environment variable {key} is not set where the worker runs")
        given[KEY] = secret
    return given


def execute_judging(
    *, claim: Claim, stopping: threading.Event, command: Sequence[str] = ENGINE
) -> None:
    """Judge what a claimed job asks for and record what came of it. Raises LostLease."""
    with Lease(claim, stopping) as lease:
        end = attempt(claim, lease, stopping, command)
        when_it_answers(end, stopping=stopping)


def attempt(
    claim: Claim, lease: Lease, stopping: threading.Event, command: Sequence[str]
) -> Callable[[], None]:
    """Work on a claimed judging. Returns the write that records how that ended."""
    end = functools.partial(ended, claim)
    if claim.job.cancel_requested:
        return functools.partial(end, to=Job.State.CANCELLED, reason="cancelled")
    try:
        judge, _ = when_it_answers(functools.partial(parties, claim.job), stopping=stopping)
        folder = when_it_answers(functools.partial(prepare, claim.job), stopping=stopping)
        earlier = read_result(folder)
        if earlier is not None and earlier["status"] == "done":
            return functools.partial(succeed, claim, folder, earlier)
        if earlier is not None:  # a person asked for another try
            when_it_answers(functools.partial(set_aside, claim, folder), stopping=stopping)
        given = outgoing(judge, claim.job.payload["key"])
        child = Child(command, folder, claim.token.hex, alive=lambda: lease.safe, given=given)
    except (CannotLaunch, AnnotateError) as error:
        return functools.partial(end, to=Job.State.FAILED, reason="refused", detail=f"{error}.")
    except OSError as error:
        detail = f"the folder of the judging could not be written: {error}"
        return functools.partial(end, to=Job.State.FAILED, reason="disk", detail=detail)
    progress = Progress(claim, folder / "attempts" / claim.token.hex / "events.jsonl")
    try:
        ending = supervise(lease, child, progress, stopping)
    finally:
        child.close()
    return functools.partial(take_over, claim, folder, child, progress, ending)


def folder_of(job: Job) -> Path:
    return Path(settings.DATA_DIR) / "judging" / f"job-{job.pk}"


def parties(job: Job) -> tuple[JudgeVersion, Project]:
    """The judge and the project of a job, of its own workspace and no other."""
    ours = {"workspace": job.workspace_id}
    return (
        JudgeVersion.objects.get(pk=job.payload["judge"], **ours),
        Project.objects.get(pk=job.payload["project"], **ours),
    )


def prepare(job: Job) -> Path:
    """The job's folder, made before its first try: which comparisons are asked is settled then.

    What an earlier job of this version was answered here and could not store is taken along.
    Raises CannotLaunch, OSError.
    """
    folder, asked = folder_of(job), job.payload
    if (folder / "config.json").is_file():
        return folder
    judge, project = parties(job)
    found = unjudged(project=project, judge=judge, by_people=asked["by_people"])[: asked["limit"]]
    lines = [row_of(comparison) for comparison in found]
    if not lines:
        raise CannotLaunch(f"{judge} has judged all there is to judge in {project}")
    config = config_of(judge, asked["bounds"])
    for earlier in judgings(judge=judge, project=project).filter(pk__lt=job.pk):
        for number, path in enumerate(sorted(folder_of(earlier).glob(f"attempts/*/{ANSWERS}"))):
            kept = folder / "attempts" / f"of-job-{earlier.pk}-{number}"
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept / ANSWERS)
    write_folder(folder, config, lines)
    return folder


class Progress:
    """Copies how far the engine says it is to the job's row, while the job is ours."""

    def __init__(self, claim: Claim, path: Path) -> None:
        self._claim, self._path = claim, path
        self.newest: dict[str, Any] | None = None

    def forward(self) -> None:
        """Raises LostLease, storing nothing, where another worker has the job."""
        found = newest_progress(self._path)
        if found is None or found == self.newest:
            return
        with queueing.fenced(claim=self._claim):
            Job.objects.filter(pk=self._claim.job.pk).update(outcome=found)
            if self.newest is not None:
                queueing.got_further(claim=self._claim)
        self.newest = found


def newest_progress(path: Path) -> dict[str, Any] | None:
    """The last whole progress event of a file; None where there is none yet."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, handle.seek(0, os.SEEK_END) - TAIL))
            lines = handle.read().split(b"\n")
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            event = json.loads(line)
            if event["kind"] == "progress" and all(is_count(event[name]) for name in SHOWN):
                return {**{name: event[name] for name in SHOWN}, "cost": float(event["cost"])}
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return None


def ended(claim: Claim, **how: Any) -> None:
    """End the claim; how far it came stays with the job."""
    how.setdefault("outcome", Job.objects.values_list("outcome", flat=True).get(pk=claim.job.pk))
    queueing.finish(claim=claim, **how)


def take_over(claim: Claim, folder: Path, child: Child, progress: Progress, ending: Ending) -> None:
    """Record how an attempt ended. May be done again where the database left in the middle."""
    progress.forward()
    result = read_result(folder)
    if result is not None and result["status"] == "done":
        succeed(claim, folder, result)
    elif ending.asked == "cancel":
        ended(claim, to=Job.State.CANCELLED, reason="cancelled")
    elif ending.asked or ending.status == EXIT_INTERRUPTED:
        queueing.give_back(claim=claim, reason="preempted", detail=GOES_ON)
    elif ending.status == EXIT_NO_SPACE:
        ended(claim, to=Job.State.FAILED, reason="disk", detail=no_space(child, folder))
    elif result is not None:
        detail = str(result.get("reason"))
        ended(
            claim, to=Job.State.FAILED, reason=str(result.get("cause") or "refused"), detail=detail
        )
    else:
        reason, detail = why_it_died(child, ending.status)
        if queueing.is_last_chance(claim.job):
            ended(claim, to=Job.State.FAILED, reason=reason, detail=detail)
        else:
            queueing.give_back(claim=claim, reason=reason, detail=detail, strikes=1)


def succeed(claim: Claim, folder: Path, result: dict[str, Any]) -> None:
    """The judgments and the job's end become true together, or not at all."""
    judge, project = parties(claim.job)
    try:
        rows = list(read_lines(folder / str(result["judgments"])))
        with transaction.atomic():
            before = Job.objects.values_list("outcome", flat=True).get(pk=claim.job.pk)
            stored = store_machine_judgments(judge=judge, project=project, rows=rows)
            made = {"stored": stored, "stopped": str(result.get("reason") or "")}
            queueing.finish(claim=claim, to=Job.State.SUCCEEDED, outcome={**(before or {}), **made})
    except (AnnotateError, OSError, ValueError, KeyError) as error:
        detail = f"its judgments could not be taken over, and none is stored: {error}"
        ended(claim, to=Job.State.FAILED, reason="bug", detail=detail)
        return
    shutil.rmtree(folder, ignore_errors=True)
