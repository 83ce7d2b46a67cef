"""Small disks that can be filled: tmpfs mounts, which take root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BALLAST = "ballast"


class Disk:
    """A mounted tmpfs and the file that fills it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take all space but so much."""
        with (self.path / BALLAST).open("ab") as out:
            free = shutil.disk_usage(self.path).free
            os.posix_fallocate(out.fileno(), out.tell(), max(free - leave_bytes, 1))

    def make_room(self) -> None:
        (self.path / BALLAST).unlink()

    def files(self) -> list[str]:
        """What is on it beside the ballast, by relative path."""
        found = (path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file())
        return sorted(str(path) for path in found if str(path) != BALLAST)


@contextmanager
def small_disk(path: Path, *, megabytes: int) -> Iterator[Disk]:
    """A disk of that size at `path`. Skips the test where none may be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount the small disk that this test fills")
    path.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
