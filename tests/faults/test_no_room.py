"""A full disk ends or pauses a job with words that say so, and leaves nothing half made."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Install, Measured
from tests.faults.disks import small_disk
from tests.faults.installation import Installation, complete, stand_in
from tests.faults.servers import free_port

pytestmark = pytest.mark.faults
STEPS = 4
POLICY = {"optim": {"batch_size": 4, "max_steps": STEPS}, "checkpoint_every": 1}


def launch(site: Installation, base: str) -> dict[str, Any]:
    """A queued training run of a new round."""
    site.act("open_lab", base=base)
    site.act("launch_round", method="sft", config={"policy": POLICY})
    (row,) = site.act("jobs")
    return dict(row)


def assert_failed_for_the_disk(site: Installation, job: int) -> str:
    """Failed, its reason "disk", its detail in words for whoever has to make room."""
    row = site.wait_until(lambda: ended(site, job), 60, "the job has ended")
    assert (row["state"], row["reason"]) == ("failed", "disk"), row["detail"]
    assert any(word in row["detail"].lower() for word in ("space", "room")), row["detail"]
    assert row["round"] == "failed"
    assert site.engines() == []
    detail: str = row["detail"]
    return detail


def ended(site: Installation, job: int) -> dict[str, Any] | None:
    row = site.job(job)
    return row if row["state"] in ("failed", "succeeded", "cancelled") else None


def assert_nothing_half_made(folder: Path) -> None:
    """Every checkpoint is whole, and nothing has the name of a result without being one."""
    assert not list(folder.glob("adapter*"))
    assert not list(folder.rglob(".*")), "files that were written beside and never renamed"
    for checkpoint in folder.glob("attempts/*/checkpoints/*"):
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        for name, wanted in manifest["files"].items():
            digest = wanted if isinstance(wanted, str) else wanted["sha256"]
            assert hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() == digest


def assert_succeeds_now(site: Installation, job: int) -> None:
    site.act("retry", job=job)
    site.wait_for_state(job, "succeeded", 90)
    history = site.act("history", job=job)
    assert complete(history["metrics"], "loss/train", STEPS)
    assert history["output"] is not None


def words(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def events_of(folder: Path) -> str:
    return "".join(words(path) for path in folder.glob("attempts/*/events.jsonl"))


def test_no_room_for_a_checkpoint(install: Install, tiny: str, measured: Measured) -> None:
    site = install()
    with small_disk(site.runs, megabytes=100) as disk:
        row = launch(site, tiny)
        disk.fill(leave_bytes=8_000_000)  # enough to begin, too little for a checkpoint
        site.worker()
        detail = assert_failed_for_the_disk(site, row["id"])
        assert "MB" in detail
        assert_nothing_half_made(site.runs / row["folder"])
        disk.make_room()
        assert_succeeds_now(site, row["id"])
        measured("disk full at a checkpoint", "failed: disk; retried: done", "a clear text")


@pytest.mark.parametrize(
    ("moment", "seen"),
    ids=["opened", "loading"],
    argvalues=[
        ("its log is opened", lambda folder: any(folder.glob("attempts/*/log.txt"))),
        ("it loads", lambda folder: '"load"' in events_of(folder)),
    ],
)
def test_no_room_for_a_line_of_the_log(
    moment: str, seen: Callable[[Path], bool], install: Install, tiny: str, measured: Measured
) -> None:
    site = install()
    with small_disk(site.runs, megabytes=100) as disk:
        row = launch(site, tiny)
        site.worker()
        folder = site.runs / row["folder"]
        site.wait_until(lambda: seen(folder), 60, moment)
        disk.fill()
        assert_failed_for_the_disk(site, row["id"])
        assert_nothing_half_made(folder)
        disk.make_room()
        assert_succeeds_now(site, row["id"])
        measured(f"disk full for the log, {moment}", "failed: disk; retried: done", "a clear text")


def test_no_room_for_the_run_folder(install: Install, tiny: str, measured: Measured) -> None:
    site = install()
    with small_disk(site.runs, megabytes=100) as disk:
        row = launch(site, tiny)
        disk.fill()
        site.worker()
        assert_failed_for_the_disk(site, row["id"])
        assert disk.files() == []
        disk.make_room()
        assert_succeeds_now(site, row["id"])
        measured("disk full at the run folder", "failed: disk; retried: done", "a clear text")


def test_no_room_for_an_export(install: Install, measured: Measured) -> None:
    site = install()
    site.act("open_lab")
    with small_disk(site.folder / "exports", megabytes=2) as disk:

        def export() -> subprocess.CompletedProcess[str]:
            out = str(disk.path / "snapshot")
            return subprocess.run(
                site.manage("export_snapshot", "1", "--out", out, "--format", "jsonl"),
                env=site.environment, capture_output=True, text=True, timeout=60,
            )  # fmt: skip

        disk.fill(leave_bytes=4096)
        refused = export()
        assert refused.returncode == 1
        assert "No space left on device" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert disk.files() == []
        disk.make_room()
        assert export().returncode == 0
        assert "data/train.jsonl" in [name.removeprefix("snapshot/") for name in disk.files()]
        measured("disk full at an export", "refused; again: done", "a clear text, nothing left")


def test_no_room_for_the_database(
    install: Install, migrated_file: Path, measured: Measured
) -> None:
    disk_path = migrated_file.parent / "small"
    with small_disk(disk_path, megabytes=16) as disk:
        copy = shutil.copy(migrated_file, disk.path / "platform.sqlite3")
        site = install(database=f"sqlite:///{copy}")
        site.act("open_lab")
        (job,) = site.act("launch_samplings")
        port = free_port()
        site.web(port)
        site.worker(engine=stand_in(steps=8, step_s=0.5))
        site.wait_until(lambda: site.act("history", job=job)["metrics"], 30, "a point is stored")
        disk.fill()
        worker_log = site.logs("worker")[-1]
        site.wait_until(lambda: "disk is full" in words(worker_log), 30, "a write has failed")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/account/login/", timeout=20) as page:
            assert page.status == 200
        disk.make_room()
        site.wait_for_state(job, "succeeded", 60)
        history = site.act("history", job=job)
        assert complete(history["metrics"], "loss/train", 8)
        assert ["running", "failed"] not in history["moves"]
        assert history["samples"] == 4
        measured("disk full at the database", "paused; then done", "0 failed, web answers 200")
