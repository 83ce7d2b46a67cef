"""Opening projects, and the workspace that the command line works in."""

from __future__ import annotations

import re

from django.db import IntegrityError, transaction

from annotate.errors import AnnotateError
from annotate.models import Guideline, Project
from rlhf_platform.accounts.models import User, Workspace

_SLUG = re.compile(r"[-a-zA-Z0-9_]{1,50}")


def create_project(
    *,
    workspace: Workspace,
    name: str,
    slug: str,
    overlap: int = 1,
    guidelines: str = "",
    actor: User | None = None,
) -> Project:
    """A project with version 1 of its guidelines."""
    check_slug(slug, "project")
    if not name.strip() or len(name) > 120:
        raise AnnotateError(f"The project's name has {len(name)} characters; use 1 to 120.")
    if not 1 <= overlap <= 100:
        raise AnnotateError(f"An overlap of {overlap} is not possible; use 1 to 100 people.")
    try:
        with transaction.atomic():
            project = Project.objects.create(
                workspace=workspace, name=name, slug=slug, overlap=overlap, created_by=actor
            )
            Guideline.objects.create(project=project, version=1, text=guidelines)
    except IntegrityError:
        raise AnnotateError(
            f"There is a project {slug!r} in the workspace {workspace.slug!r} already; "
            "choose another name."
        ) from None
    return project


def open_workspace(*, slug: str) -> Workspace:
    """The workspace `slug`, made if it does not exist."""
    check_slug(slug, "workspace")
    name = slug.replace("-", " ").capitalize()
    return Workspace.objects.get_or_create(slug=slug, defaults={"name": name})[0]


def check_slug(slug: str, what: str) -> None:
    if not _SLUG.fullmatch(slug):
        raise AnnotateError(
            f"{slug!r} cannot name a {what}: use 1 to 50 letters, digits, hyphens and underscores."
        )
