"""Every command can be asked what it does, and a wrong setting ends in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

ROOT = Path(__file__).resolve().parents[2]
OURS = sorted(
    name
    for name, app in get_commands().items()
    if isinstance(app, str) and app.split(".")[0] in ("annotate", "training", "rlhf_platform")
)


@pytest.mark.parametrize("name", OURS)
def test_it_explains_itself(name: str) -> None:
    command = load_command_class(get_commands()[name], name)
    assert command.help
    shown = command.create_parser("manage.py", name).format_help()
    assert command.help.split()[0] in shown


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"DATA_DIR": "/proc/nowhere"}, "DATA_DIR=/proc/nowhere cannot be written"),
        ({"DATABASE_URL": "oracle://x"}, "DATABASE_URL has the scheme 'oracle'"),
        ({"JOB_LEASE_S": "soon"}, "JOB_LEASE_S='soon' is not a whole number"),
        ({"SECRET_KEY_FILE": "/no/such/file"}, "SECRET_KEY_FILE=/no/such/file cannot be read"),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env=os.environ | wrong,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
