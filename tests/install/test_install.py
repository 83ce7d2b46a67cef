"""requirements/install.sh on machines that lack something: it says what, and how to mend it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
#: A Python whose version check passes, and that makes a venv which is another such script.
PYTHON = """#!/bin/sh
case "$*" in
    *version_info*) {version} ;;
    *ensurepip*) {venv} ;;
    --version) echo "Python 3.x" ;;
    "-m venv --clear .venv") mkdir -p .venv/bin && cp {inner} .venv/bin/python ;;
esac
"""
#: The Python inside that venv: pip notes what it was asked for; torch wants NVIDIA's libraries.
INNER = """#!/bin/sh
case "$*" in
    "-m pip --version") ;;
    *"-m pip"*) echo "$*" >>pip.log ;;
    *"import torch"*)
        grep -q train-cuda.lock pip.log 2>/dev/null && exit 0
        echo "ImportError: {error}" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(REQUIREMENTS, tmp_path / "requirements")
    return tmp_path


def script(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def install(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(checkout / "requirements" / "install.sh")],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def a_python(checkout: Path, *, version: str = "exit 0", venv: str = "exit 0", error: str) -> str:
    inner = script(checkout / "inner", INNER.replace("{error}", error))
    text = PYTHON.format(version=version, venv=venv, inner=inner)
    return str(script(checkout / "python", text))


def test_a_missing_python_is_named(checkout: Path) -> None:
    done = install(checkout, PYTHON="python-that-is-not-there")
    assert done.returncode == 1
    assert "python-that-is-not-there was not found" in done.stderr


def test_an_old_python_is_named(checkout: Path) -> None:
    done = install(checkout, PYTHON=a_python(checkout, version="exit 1", error="none"))
    assert done.returncode == 1
    assert "too old; Python 3.11 or newer" in done.stderr


def test_a_missing_venv_module_is_named_with_the_package_that_has_it(checkout: Path) -> None:
    done = install(checkout, PYTHON=a_python(checkout, venv="exit 1", error="none"))
    assert done.returncode == 1
    assert "'venv' module" in done.stderr
    assert "python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_torch_without_its_nvidia_libraries_gets_them(checkout: Path) -> None:
    python = a_python(checkout, error="libcudart.so.13: cannot open shared object file")
    done = install(checkout, PYTHON=python)
    assert done.returncode == 0, done.stderr
    asked = (checkout / "pip.log").read_text(encoding="utf-8")
    assert "train.lock" in asked.splitlines()[0]
    assert asked.splitlines()[-1].endswith("train-cuda.lock")
    assert (checkout / ".venv" / ".installed").is_file()


def test_a_torch_that_fails_for_another_reason_is_shown(checkout: Path) -> None:
    done = install(checkout, PYTHON=a_python(checkout, error="wrong ELF class"))
    assert done.returncode == 1
    assert "wrong ELF class" in done.stderr
    assert "train-cuda.lock" not in (checkout / "pip.log").read_text(encoding="utf-8")
    assert not (checkout / ".venv" / ".installed").exists()
