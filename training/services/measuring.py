"""How far somebody's texts are from general ones: a job that asks a base (`engine.domain`).

Bounded on every side: so much of the texts goes along, the base reads a few thousand tokens, and
after TIMEOUT_S the child is ended. The device's loop does it, so that no two models are loaded.
"""

from __future__ import annotations

import functools
import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django.db import transaction

from rlhf_platform.accounts.models import Workspace
from training.engine.errors import BaseModelError
from training.engine.packaged import PACKAGED
from training.engine.planner_shapes import packaged_shape
from training.engine.stretches import STRETCH, STRETCHES, stretches
from training.errors import CannotLaunch, LostLease
from training.models import Job, ModelVersion, TextSet
from training.selectors.plans import version_shape
from training.services import queueing
from training.services.children import Child
from training.services.executing import ENGINE
from training.services.leases import AWAY, Lease
from training.services.queueing import Claim
from training.services.supervising import when_it_answers
from training.services.versions import HUB_ID

log = logging.getLogger(__name__)

#: Characters of a text that are measured; of a longer one stretches that are spread evenly.
MOST_CHARACTERS = STRETCHES * STRETCH
#: What measures where nothing better is at hand.
DEFAULT_SOURCE = "demo"
#: Seconds that a measurement may take: a base is loaded, and may have to be converted once.
TIMEOUT_S = 900.0


def queue_measurement(
    *,
    workspace: Workspace,
    source: str,
    text: str = "",
    text_set: TextSet | None = None,
    case: dict[str, Any] | None = None,
) -> Job:
    """A queued measurement under a base; its outcome is what `domain.Distance.as_json` gives.

    source: what a run's `base.source` names; never a path that a stranger gave. case: kept beside
    it, for whoever comes back to it. Raises CannotLaunch for no text, or for two.
    """
    if bool(text.strip()) == (text_set is not None):
        raise CannotLaunch("one text is measured: give either a text or a text set")
    if text_set is not None and text_set.workspace_id != workspace.pk:
        raise CannotLaunch("the text set belongs to another workspace")
    return queueing.enqueue(
        kind=Job.Kind.MEASURE,
        queue=Job.Queue.SAMPLING,
        workspace=workspace,
        payload={
            "source": source,
            "texts": stretches(text, STRETCHES) if text_set is None else [],
            "text_set": text_set.pk if text_set is not None else None,
            "case": case or {},
        },
    )


def measuring_source(*, version: ModelVersion | None, base: str) -> str:
    """The base to measure under: the one that was chosen, or else the packaged one that writes.

    base: a packaged name or a Hub id; anything else, a path above all, is passed over. An encoder
    gives a text no probability.
    """
    if version is not None:
        try:
            writes = version_shape(version).decoder
        except BaseModelError:
            writes = True  # its shape is elsewhere; the engine says if it cannot
        return str(version.base["source"]) if writes else DEFAULT_SOURCE
    if base in PACKAGED:
        return base if packaged_shape(base).decoder else DEFAULT_SOURCE
    return base if HUB_ID.fullmatch(base) else DEFAULT_SOURCE


def measured_distance(job: Job | None) -> dict[str, Any] | None:
    """What a measurement found; None as long as it has found nothing."""
    if job is None or job.kind != Job.Kind.MEASURE or job.state != Job.State.SUCCEEDED:
        return None
    return job.outcome


def execute_measurement(
    *, claim: Claim, stopping: threading.Event, command: Sequence[str] = ENGINE
) -> None:
    """Do a claimed measurement and record what came of it. Raises LostLease."""
    with Lease(claim, stopping) as lease:
        end = try_measurement(claim, lease, stopping, command)
        lease.check()
        when_it_answers(end, stopping=stopping)


def try_measurement(
    claim: Claim, lease: Lease, stopping: threading.Event, command: Sequence[str]
) -> Callable[[], None]:
    """Measure, and return the write that records what came of it."""
    fail = functools.partial(queueing.finish, claim=claim, to=Job.State.FAILED)
    try:
        texts = when_it_answers(functools.partial(texts_of, claim.job), stopping=stopping)
        with tempfile.TemporaryDirectory(prefix="measure-") as name:
            folder = Path(name)
            arguments = write_case(folder, claim.job, texts)
            with Child(
                command, folder, claim.token.hex, alive=lambda: lease.safe, arguments=arguments
            ) as child:
                asked = wait_for(child, lease)
                status = child.process.wait()
                if asked == "interrupt":
                    return functools.partial(end_interrupted, claim, stopping)
                if asked == "timeout":
                    detail = f"the base did not answer within {TIMEOUT_S:.0f} s; take a smaller one"
                    return functools.partial(fail, reason="refused", detail=detail)
                if status != 0:
                    reason = "oom" if child.ran_out_of_memory() else "refused"
                    return functools.partial(fail, reason=reason, detail=child.last_words())
            found = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    except (LostLease, *AWAY):
        raise
    except OSError as error:
        detail = f"the texts could not be written for the engine: {error}; free space"
        return functools.partial(fail, reason="disk", detail=detail)
    return functools.partial(succeed, claim, found["measured_distance"])


def texts_of(job: Job) -> list[str]:
    """The texts to measure: as they were sent, or documents spread evenly over a text set."""
    if job.payload["text_set"] is None:
        return [str(text) for text in job.payload["texts"]]
    text_set = TextSet.objects.get(pk=job.payload["text_set"], workspace=job.workspace)
    every = max(1, text_set.size_bytes // MOST_CHARACTERS)
    documents = text_set.documents.order_by("position").values_list("text", flat=True)
    chosen = [text for n, text in enumerate(documents.iterator(chunk_size=500)) if n % every == 0]
    return stretches("\n\n".join(chosen), STRETCHES)


def write_case(folder: Path, job: Job, texts: Sequence[str]) -> list[str]:
    """The files that the engine reads. Returns its arguments."""
    case = {"task": "generation", "base": job.payload["source"]}
    (folder / "case.json").write_text(json.dumps(case), encoding="utf-8")
    files = [folder / f"text-{number}.txt" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text, encoding="utf-8")
    return [
        "advise", "--case", str(folder / "case.json"), "--text", *map(str, files),
        "--out", str(folder / "out.json"),
    ]  # fmt: skip


def wait_for(child: Child, lease: Lease) -> str:
    """Wait for a child's end. Returns why it was ended before: interrupt, timeout, or empty."""
    deadline = time.monotonic() + TIMEOUT_S
    while child.process.poll() is None:
        interrupted = lease.interrupt.wait(0.1)
        if interrupted or time.monotonic() > deadline:
            child.kill()
            return "interrupt" if interrupted else "timeout"
    return ""


def end_interrupted(claim: Claim, stopping: threading.Event) -> None:
    if stopping.is_set():
        queueing.give_back(claim=claim, reason="preempted", detail="its worker was stopped")
    else:
        queueing.finish(claim=claim, to=Job.State.CANCELLED, reason="cancelled")


def succeed(claim: Claim, found: dict[str, Any]) -> None:
    """Keep the numbers, and no longer the texts."""
    with transaction.atomic():
        queueing.finish(claim=claim, to=Job.State.SUCCEEDED, outcome=found)
        Job.objects.filter(pk=claim.job.pk).update(payload={**claim.job.payload, "texts": []})
