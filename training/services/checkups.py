"""What `manage.py doctor` looks at in training: the engine, the queue, and the runs' files.

The engine is asked in a child process, so that nobody here imports torch.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.utils import timezone

from rlhf_platform.doctor.findings import PATIENCE_S, Check, Finding, shortly
from training.models import Job, ModelVersion, Run, RunCheckpoint
from training.selectors.logs import inside_runs
from training.selectors.queues import PATIENCE
from training.services.children import environment
from training.services.queueing import FINAL

#: Seconds that importing torch and its like may take on a cold disk.
IMPORT_PATIENCE_S = 180
INSTALL = "make install puts the versions of the lock back"


# The engine -------------------------------------------------------------------------------------


def check_engine() -> list[Finding]:
    """Can it be imported, is it what the lock says, on what does it run, and has it its bases?"""
    if find_spec("torch") is None:
        said = "torch is not installed: this machine can serve the site, but no worker of runs"
        return [Finding("engine", "warning", said, "for a worker: make install")]
    try:
        done = ask_engine()
    except subprocess.TimeoutExpired:
        said = f"its imports took longer than {IMPORT_PATIENCE_S} s"
        return [Finding("engine", "bad", said, "is the disk, or the machine, overloaded?")]
    try:
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return [Finding("engine", "bad", f"it cannot be started: {last}", INSTALL)]
    return engine_findings(told, locked(told))


def ask_engine() -> subprocess.CompletedProcess[str]:
    """The engine's own word, under the environment in which it runs. Raises TimeoutExpired."""
    return subprocess.run(
        [sys.executable, "-m", "training.engine.selfcheck"],
        cwd=settings.BASE_DIR,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=IMPORT_PATIENCE_S,
    )


def locked(told: dict[str, Any]) -> dict[str, str]:
    """The versions of the lock that fits this torch; empty where the locks are not at hand."""
    name = "train-cuda.lock" if told.get("device", {}).get("cuda") else "train.lock"
    try:
        text = (Path(settings.BASE_DIR) / "requirements" / name).read_text(encoding="utf-8")
    except OSError:
        return {}
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", text, re.MULTILINE))


def engine_findings(told: dict[str, Any], lock: dict[str, str]) -> list[Finding]:
    if told["broken"]:
        said = "; ".join(
            f"{name} cannot be imported ({why})" for name, why in told["broken"].items()
        )
        found = [Finding("engine", "bad", said, INSTALL)]
    else:
        found = [versions_finding(told["versions"], lock)]
    if "device" in told:
        found.append(device_finding(told["device"]))
    found += [base_finding(name, base) for name, base in told.get("bases", {}).items()]
    return found


def versions_finding(versions: dict[str, str], lock: dict[str, str]) -> Finding:
    listed = ", ".join(f"{name} {number}" for name, number in versions.items())
    other = [
        f"{name} {number} instead of {lock[name]}"
        for name, number in versions.items()
        if name in lock and number.partition("+")[0] != lock[name].partition("+")[0]
    ]
    if other:
        said = f"{', '.join(other)}: results may differ from those of the lock"
        return Finding("engine", "warning", said, INSTALL)
    return Finding("engine", "ok", f"{listed}{', as locked' if lock else ''}")


def device_finding(device: dict[str, Any]) -> Finding:
    if device["name"] is None:
        if Path("/dev/nvidia0").exists():
            said = "there is an NVIDIA device, and torch does not see it: runs use the processor"
            mend = "install requirements/train-cuda.lock, and a driver that its CUDA fits"
            return Finding("device", "warning", said, mend)
        threads = f"{settings.TRAINING_THREADS} threads (TRAINING_THREADS)"
        return Finding("device", "ok", f"no GPU: runs use the processor with {threads}")
    free, total = device["free_bytes"] / 1e9, device["total_bytes"] / 1e9
    name = f"{device['name']}, {free:.1f} of {total:.1f} GB free"
    if not device["computes"]:
        said = f"{name}, and it computes nothing right ({device.get('why', 'a wrong sum')})"
        return Finding(
            "device", "bad", said, "does nvidia-smi show it healthy? reboot, or leave it"
        )
    bf16 = "bfloat16" if device["bf16"] else "no bfloat16: choose dtype float32"
    return Finding("device", "ok", f"{name}, {bf16}")


def base_finding(name: str, told: dict[str, Any]) -> Finding:
    """A packaged base: is it there, and can what runs read of it be opened?"""
    what = f"base {name}"
    if told["packaged"] is None:
        return Finding(what, "warning", told["why"], f"only runs on the base “{name}” need it")
    if told["folder"] is None:
        return Finding(what, "ok", "packaged; the first run converts it")
    if told["why"] and told["converts"]:
        said = f"its converted folder is damaged ({told['why']})"
        mend = f"delete {told['folder']}: the next run converts it again"
        return Finding(what, "bad", said, mend)
    if told["why"]:
        return Finding(what, "bad", f"its package is damaged ({told['why']})", INSTALL)
    said = f"packaged, and converted in {told['folder']}" if told["converts"] else "packaged"
    return Finding(what, "ok", said)


# The queue --------------------------------------------------------------------------------------


def check_jobs() -> list[Finding]:
    """Leases that ran out, and jobs that wait while nobody is at work."""
    now = timezone.now()
    running = Job.objects.filter(state=Job.State.RUNNING)
    # A living worker takes back what is overdue within seconds.
    overdue = list(running.filter(lease_until__lt=now - PATIENCE).order_by("pk"))
    found = []
    if overdue:
        said = f"{named(overdue)}: the worker fell silent and no other has taken over"
        found.append(Finding("jobs", "bad", said, "start one: manage.py up, or manage.py worker"))
    if lost := list(Job.objects.filter(state=Job.State.LOST).order_by("pk")):
        said = f"{named(lost)}: between two states, where no job should rest"
        found.append(Finding("jobs", "bad", said, "report this: it is a fault of ours"))
    waiting = list(
        Job.objects.filter(state=Job.State.QUEUED, created_at__lt=now - PATIENCE).order_by("pk")
    )
    if waiting and not running.filter(lease_until__gte=now).exists():
        said = f"{named(waiting)}: waiting, and nobody is at work"
        mend = "start a worker: manage.py up, or manage.py worker"
        found.append(Finding("jobs", "warning", said, mend))
    if found:
        return found
    active = running.count()
    return [Finding("jobs", "ok", f"none is stuck ({active} running, {len(waiting)} waiting)")]


def named(jobs: list[Job]) -> str:
    numbers = shortly([str(job.pk) for job in jobs], most=5)
    return f"job {numbers}" if len(jobs) == 1 else f"jobs {numbers}"


# Files ------------------------------------------------------------------------------------------


def check_files() -> list[Finding]:
    """Do rows and folders agree: adapters, run folders, checkpoints?"""
    return [adapters_finding(), folders_finding(), checkpoints_finding()]


def adapters_finding() -> Finding:
    versions = ModelVersion.objects.exclude(adapter_path="").order_by("pk")
    missing = [
        f"{version.pk} ({version})"
        for version in versions
        if inside_runs(f"{version.adapter_path}/adapter_model.safetensors") is None
    ]
    if missing:
        said = f"the weights of model version {shortly(missing)} are not in {settings.RUNS_DIR}"
        mend = "restore the runs folder, or run the doctor on the machine that has it"
        return Finding("adapters", "bad", said, mend)
    return Finding("adapters", "ok", f"the weights of all {versions.count()} trained versions")


def folders_finding() -> Finding:
    root = Path(settings.RUNS_DIR)
    names = {str(path.relative_to(root)) for path in root.glob("*/*") if path.is_dir()}
    known = set(Run.objects.filter(folder__in=names).values_list("folder", flat=True))
    strays = sorted(names - known)
    if strays:
        said = f"{len(strays)} belong to no run of this database: {shortly(strays)}"
        mend = f"another database's, or left by a crash: look, then delete them in {root}"
        return Finding("run folders", "warning", said, mend)
    done = Run.objects.filter(job__state=Job.State.SUCCEEDED).order_by("pk")
    gone = [str(run.pk) for run in done if inside_runs(run.folder) is None]
    if gone:
        said = f"runs without their folder on this machine: {shortly(gone)}"
        mend = f"restore {root}, or run the doctor on the machine that has it"
        return Finding("run folders", "warning", said, mend)
    return Finding("run folders", "ok", f"{len(known)}, each with its run")


def checkpoints_finding() -> Finding:
    rows = RunCheckpoint.objects.filter(removed_at=None).select_related("run__job")
    lost: list[str] = []
    needed: list[str] = []
    for row in rows.order_by("pk"):
        if inside_runs(f"{row.run.folder}/{row.path}") is None:
            ended = row.run.job.state in FINAL
            (lost if ended else needed).append(f"run {row.run.pk} step {row.step}")
    if needed:
        said = f"missing, though their runs go on: {shortly(needed)}"
        mend = "they begin further back; was the runs folder moved or cleaned by hand?"
        return Finding("checkpoints", "warning", said, mend)
    if lost:
        said = f"{len(lost)} rows whose files are gone: {shortly(lost)}"
        return Finding("checkpoints", "warning", said, "manage.py prune notes that on the rows")
    return Finding("checkpoints", "ok", f"{rows.count()}, each with its files")


# Retrieval's vectors ----------------------------------------------------------------------------


def check_vectors() -> list[Finding]:
    """Does the database that an admin set for vectors answer, and has it pgvector?"""
    if not settings.VECTORS_DATABASE_URL:
        return []
    asked = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    try:
        with psycopg.connect(settings.VECTORS_DATABASE_URL, connect_timeout=PATIENCE_S) as vectors:
            row = vectors.execute(asked).fetchone()
    except psycopg.Error:  # what it says may quote the address, and the password in it
        said = "the database that VECTORS_DATABASE_URL names cannot be reached, or refuses the role"
        mend = 'start it, or correct the address; psql "$VECTORS_DATABASE_URL" tells you more'
        return [Finding("vectors", "bad", said, mend)]
    if row is None:
        said = "the database that VECTORS_DATABASE_URL names has no pgvector"
        mend = "install it on the server, and run CREATE EXTENSION vector in that database"
        return [Finding("vectors", "bad", said, mend)]
    return [Finding("vectors", "ok", f"PostgreSQL with pgvector {row[0]}")]


CHECKS = (
    Check("engine", check_engine),
    Check("vectors", check_vectors),
    Check("jobs", check_jobs, needs_database=True),
    Check("files", check_files, needs_database=True),
)
