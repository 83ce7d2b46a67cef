"""Running the engine as a child process: folder in, events forwarded, one result out."""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import OperationalError, close_old_connections, transaction

from annotate.export.writers import snapshot_lines
from annotate.models import PromptSet, SnapshotRow
from training.engine.config import from_dict, to_dict
from training.errors import LostLease
from training.models import Job, Run
from training.services import queueing, rounds
from training.services.forwarding import Forwarder, read_result
from training.services.queueing import Claim

log = logging.getLogger(__name__)

ENGINE = (sys.executable, "-m", "training.engine")
#: What a child may see of its parent's environment: never a key, a token or a database address.
ENVIRONMENT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
    "HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "OMP_NUM_THREADS", "VIRTUAL_ENV", "XDG_CACHE_HOME",
)  # fmt: skip
POLL_S = 0.5
#: Seconds between the polite and the final signal to a child.
GRACE_S = 8.0
#: After a worker's own SIGTERM the child may take this long for its checkpoint.
SHUTDOWN_GRACE_S = 25.0
EXIT_DONE, EXIT_INTERRUPTED = 0, 75


def run_folder(run: Run) -> Path:
    return Path(settings.RUNS_DIR) / run.folder


def prepare_folder(run: Run) -> Path:
    """The run's folder with config.json and data; written beside and renamed, once."""
    final = run_folder(run)
    if final.exists():
        return final
    beside = final.with_name(f".{final.name}.{secrets.token_hex(4)}")
    (beside / "data").mkdir(parents=True)
    for name, lines in data_lines(run).items():
        with (beside / "data" / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as out:
            out.writelines(f"{line}\n" for line in lines)
    config = to_dict(from_dict(run.config))
    (beside / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, final)
    return final


def data_lines(run: Run) -> dict[str, list[str]]:
    """The JSON lines of a run's data files, by name."""
    if run.method == Run.Method.SAMPLE:
        prompt_set = PromptSet.objects.get(
            pk=run.job.payload["prompt_set"], workspace=run.workspace_id
        )
        return {
            "prompts": [prompt_line(e.prompt) for e in prompt_set.entries.select_related("prompt")]
        }
    assert run.round is not None  # noqa: S101 - only samplings stand outside a round
    snapshot = run.round.snapshot
    train = list(snapshot_lines(snapshot=snapshot, split=SnapshotRow.Split.TRAIN))
    test = list(snapshot_lines(snapshot=snapshot, split=SnapshotRow.Split.TEST))
    if run.method == Run.Method.SFT:
        return {"train": [conversation_line(line) for line in train]}
    if run.method == Run.Method.PPO:
        prompts = {}
        for line in train:
            row = json.loads(line)
            prompts[row["prompt_id"]] = {"id": row["prompt_id"], "prompt": row["prompt"]}
        return {"prompts": [json.dumps(row, ensure_ascii=False) for row in prompts.values()]}
    if run.method == Run.Method.EVALUATE:
        return {"test": test}
    return {"train": train, "test": test}


def prompt_line(prompt: Any) -> str:
    return json.dumps({"id": prompt.digest, "prompt": prompt.messages}, ensure_ascii=False)


def conversation_line(line: str) -> str:
    """A preference row as the conversation that ends in its chosen answer."""
    row = json.loads(line)
    messages = [*row["prompt"], *row["chosen"]]
    return json.dumps({"id": row["id"], "messages": messages}, ensure_ascii=False)


class Child:
    """The engine's process, in a group of its own, tied to us by a pipe."""

    def __init__(self, command: Sequence[str], folder: Path, attempt: str) -> None:
        self.events = folder / "attempts" / attempt / "events.jsonl"
        self.log = folder / "attempts" / attempt / "log.txt"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        read_end, self._write_end = os.pipe()
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        environment |= {
            "ENGINE_CACHE_DIR": str(settings.MODEL_CACHE_DIR),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
            "TQDM_DISABLE": "1",  # the log is read by people, a bar's thousand lines are not
            # Threads that wait by spinning take the processor from the web beside them: two busy
            # processes on two cores ran 30 % faster with waiting threads asleep, one alone as fast.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        arguments = ["run", str(folder), "--attempt", attempt, "--heartbeat-fd", str(read_end)]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=settings.BASE_DIR,
                pass_fds=[read_end],
                start_new_session=True,
            )
        os.close(read_end)

    def ask_to_stop(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return  # the whole group is gone already

    def close(self) -> None:
        """Whatever happens, no process of the group outlives this."""
        self.kill()
        os.close(self._write_end)

    def log_tail(self, size: int = 4000) -> str:
        with self.log.open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - size))
            return handle.read().decode("utf-8", "replace")


def execute_run(
    *, claim: Claim, stopping: threading.Event, command: Sequence[str] = ENGINE
) -> None:
    """Run a claimed job's engine run to its end and record what came of it.

    A lost lease, a cancel and the worker's own shutdown all end the child first. Raises LostLease
    after the child is gone where another worker owns the job by now.
    """
    run = claim.job.run
    assert run is not None  # noqa: S101 - the job's check constraint
    if claim.job.cancel_requested:  # asked of a worker that was lost before it could obey
        end_cancelled(claim, run)
        return
    try:
        folder = prepare_folder(run)
    except OSError as error:
        fail(claim, run, reason="disk", detail=f"the run folder could not be written: {error}")
        return
    earlier = read_result(folder)
    if earlier is not None and earlier["status"] == "done":
        # A worker died between the engine's end and its own last write: take over what is there.
        succeed(claim, run, earlier)
        return
    if earlier is not None:  # a person asked for another try
        (folder / "result.json").replace(folder / f"result-before-{claim.attempt}.json")
    child = Child(command, folder, claim.token.hex)
    forwarder = Forwarder(run, claim.attempt, child.events)
    try:
        cancelled = supervise(claim, child, forwarder, stopping)
        status = child.process.wait()
    finally:
        child.close()
    forwarder.forward()
    result = read_result(folder)
    if result is not None and result["status"] == "done":
        succeed(claim, run, result)
    elif cancelled:
        end_cancelled(claim, run)
    elif status == EXIT_INTERRUPTED or stopping.is_set():
        queueing.give_back(
            claim=claim, reason="preempted", detail="interrupted; goes on from its checkpoint"
        )
    elif result is not None:
        reason = "refused" if result["status"] == "refused" else "bug"
        fail(claim, run, reason=reason, detail=str(result.get("reason")), result=result)
    else:
        lost_child(claim, run, child, status)


def supervise(claim: Claim, child: Child, forwarder: Forwarder, stopping: threading.Event) -> bool:
    """Beat, forward and listen until the child has ended. Returns whether it was cancelled."""
    cancelled = False
    deadline: float | None = None
    next_beat = 0.0
    while child.process.poll() is None:
        now = time.monotonic()
        if now >= next_beat:
            close_old_connections()
            if queueing.heartbeat(claim=claim) and deadline is None:
                cancelled, deadline = True, now + GRACE_S
                child.ask_to_stop()
            next_beat = now + min(2.0, settings.JOB_LEASE_S / 3)
        if stopping.is_set() and deadline is None:
            deadline = now + SHUTDOWN_GRACE_S
            child.ask_to_stop()
        if deadline is not None and now > deadline:
            child.kill()
        forwarder.forward()
        time.sleep(POLL_S)
    return cancelled


def succeed(claim: Claim, run: Run, result: dict[str, Any]) -> None:
    """Job, result and what the round does next become true together, or not at all."""
    try:
        with transaction.atomic():
            queueing.lock_round(run.round_id)
            queueing.finish(claim=claim, to=Job.State.SUCCEEDED)
            run.result = result
            run.save(update_fields=["result"])
            rounds.run_finished(run=run)
    except (LostLease, OperationalError):
        raise  # a database that is away is no fault of the run: the next attempt takes it over
    except Exception as error:
        log.exception("what %s made could not be taken over", run)
        fail(claim, run, reason="bug", detail=f"its result could not be taken over: {error}")


def fail(
    claim: Claim, run: Run, *, reason: str, detail: str, result: dict[str, Any] | None = None
) -> None:
    with transaction.atomic():
        queueing.lock_round(run.round_id)
        queueing.finish(claim=claim, to=Job.State.FAILED, reason=reason, detail=detail)
        if result is not None:
            run.result = result
            run.save(update_fields=["result"])
        rounds.run_ended_badly(run=run, to="failed", reason=detail)


def end_cancelled(claim: Claim, run: Run) -> None:
    with transaction.atomic():
        queueing.lock_round(run.round_id)
        queueing.finish(
            claim=claim, to=Job.State.CANCELLED, reason="cancelled", detail="by a person"
        )
        rounds.run_ended_badly(run=run, to="cancelled", reason="Cancelled by a person.")


def lost_child(claim: Claim, run: Run, child: Child, status: int) -> None:
    """The child died without a result: say how, and try again while attempts are left."""
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        reason = "oom"
        detail = (
            "the process was killed, most often because memory ran out; "
            "a smaller row_budget or batch_size needs less"
        )
    else:
        reason = "bug"
        detail = f"the process ended with status {status}: {child.log_tail(600)}"
    if queueing.is_last_chance(claim.job):
        fail(claim, run, reason=reason, detail=detail)
    else:
        queueing.give_back(claim=claim, reason=reason, detail=detail, strikes=1)
