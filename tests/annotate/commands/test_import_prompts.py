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
    assert "1 rows repeat a prompt" in printed
    assert "mine v1" in imported(path)


def test_skip_bad_lists_what_it_left(people: People, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "f.jsonl", [{"prompt": "a"}, {"prompt": 1}])
    with pytest.raises(CommandError, match="line 2: prompt is 1, not text"):
        imported(path)
    assert not PromptSet.objects.exists()
    assert "left out: 1 rows\n  line 2: prompt is 1, not text" in imported(path, "--skip-bad")


def test_bad_input_is_answered_in_a_sentence(people: People, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="there is no file"):
        imported(tmp_path / "none.txt")
    path = write_rows(tmp_path / "f.jsonl", [{"prompt": "a"}])
    with pytest.raises(CommandError, match="cannot be a prompt set's short name"):
        run("import_prompts", path, "--name", "a b", "--use", "fresh", "--workspace", "lab")
    with pytest.raises(CommandError, match="invalid choice: 'fun'"):
        run("import_prompts", path, "--name", "a", "--use", "fun", "--workspace", "lab")
