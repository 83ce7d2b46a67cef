from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from django.core.management.base import CommandError

from annotate.models import Comparison, Judgment, Project
from tests.annotate.commands.running import run
from tests.data import HH, PANDALM
from tests.factories import make_project
from tests.people import People


@pytest.fixture
def project(people: People) -> Project:
    return make_project(people.workspace)


def imported(path: Path | str, *more: str) -> str:
    return run("import_comparisons", path, "--project", "helpful", "--workspace", "lab", *more)


def test_it_tells_what_is_new_and_what_is_known(project: Project) -> None:
    first, second = imported(HH), imported(HH)
    assert "comparisons: 8 new, 0 already there" in first
    assert "judgments: 8 new, 0 already there" in first
    assert "comparisons: 0 new, 8 already there" in second
    assert "next: manage.py aggregate --project helpful" in second


def test_a_malformed_file_is_refused_with_its_lines(project: Project) -> None:
    with pytest.raises(CommandError, match=r"line 6: response1 is True, not text"):
        imported(PANDALM)
    assert not Comparison.objects.exists()


def test_skip_bad_lists_what_it_left(project: Project) -> None:
    printed = imported(PANDALM, "--skip-bad")
    assert "left out: 1 rows\n  line 6: response1 is True, not text" in printed
    assert Judgment.objects.count() == 15


def test_bad_input_is_answered_in_a_sentence_and_leaves_nothing(
    project: Project, tmp_path: Path
) -> None:
    files = {
        "empty.jsonl": (b"", "is empty"),
        "picture.png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is a binary file"),
        "text.txt": (b"What is red?\n", "is no file of pairs: line 1: not JSON"),
        "other.jsonl": (b'{"question": "?"}\n', "is of no known format"),
        "cut.jsonl.gz": (gzip.compress(HH.read_bytes())[:-50], "its end is missing"),
    }
    for name, (content, reason) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CommandError, match=reason):
            imported(tmp_path / name)
    with pytest.raises(CommandError, match="there is no file"):
        imported(tmp_path / "missing.jsonl")
    with pytest.raises(CommandError, match="is a folder"):
        imported(tmp_path)
    with pytest.raises(CommandError, match="8 of 8 rows cannot be used"):
        imported(HH, "--format", "pandalm")
    with pytest.raises(CommandError, match="invalid choice: 'csv'"):
        imported(HH, "--format", "csv")
    assert not Comparison.objects.exists()


def test_an_unknown_project_or_workspace_is_answered_with_those_there_are(
    people: People, project: Project
) -> None:
    for slug, workspace, reason in (
        ("harmless", "lab", r"no project 'harmless' in workspace 'lab' \(known: helpful\)"),
        ("helpful", "main", r"no workspace 'main' \(known: .*lab.*\)"),
        ("helpful", "elsewhere", r"in workspace 'elsewhere' \(known: none yet\)"),
    ):
        with pytest.raises(CommandError, match=reason):
            run("import_comparisons", HH, "--project", slug, "--workspace", workspace)
