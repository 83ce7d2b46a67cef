"""Finding rows by the names people type. Every miss says what exists instead."""

from __future__ import annotations

from annotate.errors import NotFound
from annotate.models import JudgeVersion, Project, PromptSet, Snapshot
from rlhf_platform.accounts.models import Workspace


def find_workspace(slug: str) -> Workspace:
    workspace = Workspace.objects.filter(slug=slug).first()
    if workspace is None:
        known = ", ".join(Workspace.objects.values_list("slug", flat=True)) or "none yet"
        raise NotFound(f"there is no workspace {slug!r} (known: {known})")
    return workspace


def find_project(slug: str, *, workspace: str) -> Project:
    place = find_workspace(workspace)
    project = Project.objects.filter(workspace=place, slug=slug).first()
    if project is None:
        known = ", ".join(place.projects.values_list("slug", flat=True)) or "none yet"
        raise NotFound(
            f"there is no project {slug!r} in workspace {workspace!r} (known: {known}); "
            f"make one with: manage.py create_project {slug}"
        )
    return project


def find_snapshot(pk: int) -> Snapshot:
    snapshot = Snapshot.objects.filter(pk=pk).first()
    if snapshot is None:
        raise NotFound(f"there is no snapshot {pk}; freeze one with: manage.py freeze_snapshot")
    return snapshot


def find_prompt_set(name: str, *, workspace: Workspace) -> PromptSet:
    """The latest version of a prompt set."""
    found = PromptSet.objects.filter(workspace=workspace, name=name).order_by("-version").first()
    if found is None:
        names = PromptSet.objects.filter(workspace=workspace).values_list("name", flat=True)
        known = ", ".join(sorted(set(names))) or "none yet"
        raise NotFound(
            f"there is no prompt set {name!r} (known: {known}); "
            "import one with: manage.py import_prompts FILE --name NAME"
        )
    return found


def find_judge(name: str, *, workspace: str) -> JudgeVersion:
    """A judge's newest version by NAME, or the one of NAME:VERSION. Raises NotFound."""
    slug, _, version = name.partition(":")
    found = JudgeVersion.objects.filter(workspace__slug=workspace, name=slug)
    if version:
        found = found.filter(version=int(version)) if version.isdecimal() else found.none()
    judge = found.order_by("-version").first()
    if judge is None:
        raise NotFound(f"there is no judge {name!r} in workspace {workspace!r}; manage.py judge")
    return judge
