from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management.base import CommandError

from annotate.models import PromptSet
from tests.annotate.commands.running import run
from tests.data import write_rows
from tests.people import People


def imported(path: Path, *more: str) -> str:
    given = ("--name", "mine", "--use", "fresh", "--workspace", "lab")
    return run("import_prompts", path, *given, *more)


def test_it_tells_the_version_and_the_number(people: People, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "f.jsonl", [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}])
    printed = imported(path)
    assert "prompt set mine v1 (fresh): 2 prompts" in printed
    assert "1 rows repeat a prompt and count once" in printed
    assert "mine v1" in imported(path)


def test_skip_bad_lists_what_it_left(people: People, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "f.jsonl", [{"prompt": "a"}, {"prompt": 1}])
    with pytest.raises(CommandError, match=r"line 2: prompt is not text \(1\)"):
        imported(path)
    assert not PromptSet.objects.exists()
    assert "line 2: prompt is not text (1)" in imported(path, "--skip-bad")


def test_bad_input_is_answered_in_a_sentence(people: People, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="There is no file"):
        imported(tmp_path / "none.txt")
    path = write_rows(tmp_path / "f.jsonl", [{"prompt": "a"}])
    with pytest.raises(CommandError, match="cannot name a prompt set"):
        run("import_prompts", path, "--name", "a b", "--use", "fresh", "--workspace", "lab")
    with pytest.raises(CommandError, match="invalid choice: 'fun'"):
        run("import_prompts", path, "--name", "a", "--use", "fun", "--workspace", "lab")
