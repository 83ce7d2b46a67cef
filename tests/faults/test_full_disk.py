"""A disk that fills at any file operation pauses the run; with room again it ends the same."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import warm_engine
from tests.faults.operations import FILLER, Fault, fill, operations
from tests.faults.test_kill_matrix import Matrix, expect_same

WRITES = [("checkpoint", 2), ("adapter", 1), ("result", 1)]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """Run folders on a file system of their own with 200 MB; needs the right to mount."""
    folder = tmp_path_factory.mktemp("full-disk")
    disk = folder / "runs"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield Matrix(folder)
    subprocess.run(["umount", "-l", str(disk)], check=True)


def run_folder(matrix: Matrix, name: str) -> Path:
    """A DPO run whose log is on another disk."""
    folder = matrix.make(name, "dpo")
    log = matrix.folder / f"{name}.txt"
    log.touch()
    (folder / "log.txt").symlink_to(log)
    return folder


def expect_paused_and_resumed(matrix: Matrix, folder: Path) -> None:
    said = warm_engine.log_of(folder).strip().splitlines()[-1]
    assert "make room and start again" in said
    assert "MB" in said
    assert not (folder / "result.json").exists()
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]
    (matrix.folder / "runs" / FILLER).unlink()
    assert warm_engine.finish(folder, "b", matrix.cache) == 0, warm_engine.log_of(folder)
    expect_same(folder, ["a", "b"], matrix.whole("dpo"))


def fills(matrix: Matrix, what: str, time: int, operation: int) -> int:
    """Fill the disk at one operation, and prove what must hold. Returns the exit status."""
    folder = run_folder(matrix, f"{what}-{operation}")
    fault = Fault(what, time, operation, fill=True)
    status = warm_engine.finish(folder, "a", matrix.cache, fault=fault)
    assert (matrix.folder / "runs" / FILLER).exists()
    if status == 0:  # all that was still to be written had its room already
        (matrix.folder / "runs" / FILLER).unlink()
        expect_same(folder, ["a"], matrix.whole("dpo"))
    else:
        assert status == 74, warm_engine.log_of(folder)
        expect_paused_and_resumed(matrix, folder)
    shutil.rmtree(folder)
    return status


@pytest.mark.parametrize(("what", "time"), WRITES)
def test_a_disk_that_fills_before_a_write_pauses_the_run(
    matrix: Matrix, what: str, time: int
) -> None:
    matrix.whole("dpo")
    assert fills(matrix, what, time, 1) == 74


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("what", "time"), WRITES)
def test_a_disk_that_fills_at_any_operation_of_a_write_pauses_the_run_or_does_no_harm(
    matrix: Matrix, what: str, time: int
) -> None:
    count = operations(matrix.whole("dpo"), what, time)
    found = [fills(matrix, what, time, operation) for operation in range(1, count + 1)]
    assert 74 in found


def test_a_disk_that_fills_with_the_log_on_it_still_ends_with_its_status(matrix: Matrix) -> None:
    matrix.whole("dpo")
    folder = matrix.make("log-too", "dpo")
    fault = Fault("checkpoint", 1, 1, fill=True)
    assert warm_engine.finish(folder, "a", matrix.cache, fault=fault) == 74
    (matrix.folder / "runs" / FILLER).unlink()
    assert warm_engine.finish(folder, "b", matrix.cache) == 0
    expect_same(folder, ["a", "b"], matrix.whole("dpo"))


def test_a_disk_without_room_for_what_will_be_kept_is_told_before_training(
    matrix: Matrix,
) -> None:
    matrix.whole("dpo")
    folder = run_folder(matrix, "too-small")
    reserve = matrix.folder / "runs" / "reserve"
    fill(matrix.folder / "runs")
    (matrix.folder / "runs" / FILLER).replace(reserve)
    with reserve.open("r+b") as handle:
        handle.truncate(reserve.stat().st_size - 30_000_000)
    assert warm_engine.finish(folder, "a", matrix.cache) == 74
    said = warm_engine.log_of(folder).strip().splitlines()[-1]
    assert said.startswith("this run (3 checkpoints of ")
    assert "which has 30 MB left" in said
    reserve.unlink()
    assert warm_engine.finish(folder, "b", matrix.cache) == 0
    expect_same(folder, ["a", "b"], matrix.whole("dpo"))
