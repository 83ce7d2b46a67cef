"""Where the demo may work: in its own folder, alone, with room, and what FRESH=1 removes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from training.management.commands.demo import MARK

ROOT = Path(__file__).resolve().parents[2]


def demo(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "demo"],
        cwd=ROOT,
        env=os.environ | {"DATA_DIR": str(folder), "SERVE": "0", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_folder_with_other_data_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "platform.sqlite3").write_text("mine", encoding="utf-8")
    done = demo(tmp_path, FRESH="1")
    assert done.returncode == 1
    assert "holds data that is not the demo's (platform.sqlite3)" in done.stderr
    assert (tmp_path / "platform.sqlite3").read_text(encoding="utf-8") == "mine"


def test_a_running_demo_is_not_emptied_from_under_itself(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    with (tmp_path / MARK).open("w") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        done = demo(tmp_path, FRESH="1")
    assert done.returncode == 1
    assert "another demo is running" in done.stderr
    assert (tmp_path / "report.json").exists()


def test_a_port_that_is_no_number_is_named(tmp_path: Path) -> None:
    done = demo(tmp_path, PORT="abc")
    assert done.returncode != 0
    assert "invalid int value: 'abc'" in done.stderr
    assert "Traceback" not in done.stderr
