"""Making projects."""

from __future__ import annotations

import re

from django.db import IntegrityError, transaction

from annotate.errors import AnnotateError
from annotate.formats.canonical import text_problem
from annotate.models import Guideline, Project
from rlhf_platform.accounts.models import User, Workspace

SLUG = re.compile(r"[-a-zA-Z0-9_]{1,50}")


def create_project(
    *,
    workspace: Workspace,
    name: str,
    slug: str,
    overlap: int = 1,
    guidelines: str = "",
    actor: User | None = None,
) -> Project:
    """A project with version 1 of its guidelines. Raises AnnotateError for a taken or bad slug."""
    check_slug(slug, "project")
    if not name.strip() or len(name) > 120:
        raise AnnotateError(f"the project's name has {len(name)} characters; allowed: 1 to 120")
    for value, what in ((name, "the project's name"), (guidelines, "the guidelines")):
        problem = text_problem(value, what)
        if problem:
            raise AnnotateError(problem)
    if not 1 <= overlap <= 100:
        raise AnnotateError(f"overlap is {overlap}; allowed: 1 to 100")
    try:
        with transaction.atomic():
            project = Project.objects.create(
                workspace=workspace, name=name, slug=slug, overlap=overlap, created_by=actor
            )
            Guideline.objects.create(project=project, version=1, text=guidelines)
    except IntegrityError:
        raise AnnotateError(f"the workspace already has a project {slug!r}") from None
    return project


def open_workspace(*, slug: str) -> tuple[Workspace, bool]:
    """(the workspace of that short name, whether it was made). Raises AnnotateError."""
    check_slug(slug, "workspace")
    return Workspace.objects.get_or_create(
        slug=slug, defaults={"name": slug.replace("-", " ").title()}
    )


def check_slug(slug: str, what: str) -> None:
    """Raise AnnotateError for what cannot be a short name."""
    if not SLUG.fullmatch(slug):
        raise AnnotateError(
            f"{slug!r} cannot be a {what}'s short name: use 1 to 50 letters, digits, - and _"
        )
