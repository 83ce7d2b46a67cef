from __future__ import annotations

import pytest

from annotate.errors import AnnotateError
from annotate.models import Project
from annotate.services.projects import create_project, open_workspace
from rlhf_platform.accounts.models import Workspace
from tests.people import People


def test_a_project_begins_with_version_1_of_its_guidelines(people: People) -> None:
    project = create_project(
        workspace=people.workspace,
        name="Helpful answers",
        slug="helpful",
        overlap=3,
        guidelines="Prefer the truth.",
        actor=people.rita,
    )
    assert (project.overlap, project.created_by) == (3, people.rita)
    assert list(project.guidelines.values_list("version", "text")) == [(1, "Prefer the truth.")]


def test_two_workspaces_may_use_one_name_but_not_one_workspace_twice(people: People) -> None:
    for workspace in (people.workspace, people.elsewhere):
        create_project(workspace=workspace, name="Helpful", slug="helpful")
    with pytest.raises(AnnotateError, match="the workspace already has a project 'helpful'"):
        create_project(workspace=people.workspace, name="Helpful", slug="helpful")
    assert Project.objects.count() == 2


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"slug": "no blanks"}, "'no blanks' cannot be a project's short name"),
        ({"slug": ""}, "'' cannot be a project's short name"),
        ({"name": " "}, "name has 1 characters"),
        ({"name": "x" * 121}, "name has 121 characters"),
        ({"name": "a\0b"}, "project's name holds a NUL"),
        ({"guidelines": "a\0b"}, "guidelines holds a NUL"),
        ({"overlap": 0}, "overlap is 0; allowed: 1 to 100"),
        ({"overlap": 101}, "overlap is 101"),
    ],
)
def test_impossible_fields_are_refused(
    people: People, fields: dict[str, object], reason: str
) -> None:
    given = {"name": "Helpful", "slug": "helpful"} | fields
    with pytest.raises(AnnotateError, match=reason):
        create_project(workspace=people.workspace, **given)
    assert not Project.objects.exists()


@pytest.mark.django_db
def test_a_workspace_is_opened_once() -> None:
    workspace, made = open_workspace(slug="main")
    assert (workspace.name, made) == ("Main", True)
    assert open_workspace(slug="main") == (workspace, False)
    with pytest.raises(AnnotateError, match="'two words' cannot be a workspace's short name"):
        open_workspace(slug="two words")
    assert Workspace.objects.count() == 1
