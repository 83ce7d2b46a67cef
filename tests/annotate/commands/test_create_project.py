from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management.base import CommandError

from annotate.models import Project
from rlhf_platform.accounts.models import Workspace
from tests.annotate.commands.running import run

pytestmark = pytest.mark.django_db


def test_a_project_and_its_workspace_are_made() -> None:
    printed = run("create_project", "helpful-answers", "--overlap", 3)
    project = Project.objects.get()
    assert (project.name, project.overlap) == ("Helpful answers", 3)
    assert project.workspace.slug == "main"
    assert "made workspace main" in printed
    assert "made project helpful-answers (Helpful answers) in workspace main" in printed
    assert "next: manage.py import_comparisons FILE --project helpful-answers" in printed


def test_a_second_project_joins_the_workspace() -> None:
    for slug in ("one", "two"):
        run("create_project", slug, "--workspace", "lab", "--name", "A name")
    assert Workspace.objects.get().projects.count() == 2


def test_guidelines_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "guidelines.md"
    path.write_text("Prefer the truth.", encoding="utf-8")
    run("create_project", "helpful", "--guidelines", path)
    assert Project.objects.get().guidelines.get().text == "Prefer the truth."


def test_bad_input_is_answered_in_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9")
    for arguments, reason in (
        (["two words"], "cannot be a project's short name"),
        (["helpful", "--workspace", "two words"], "cannot be a workspace's short name"),
        (["helpful", "--overlap", "0"], "overlap is 0"),
        (
            ["helpful", "--guidelines", tmp_path / "none.md"],
            r"none\.md cannot be read: No such file",
        ),
        (["helpful", "--guidelines", tmp_path], "Is a directory"),
        (["helpful", "--guidelines", latin], "is not UTF-8 text"),
    ):
        with pytest.raises(CommandError, match=reason):
            run("create_project", *arguments)
    assert not Project.objects.exists()
    assert not Workspace.objects.filter(slug="two words").exists()


def test_a_name_that_is_taken_is_refused() -> None:
    run("create_project", "helpful")
    with pytest.raises(CommandError, match="already has a project 'helpful'"):
        run("create_project", "helpful")
