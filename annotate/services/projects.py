"""Making projects."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django.db import IntegrityError, transaction

from annotate.errors import AnnotateError
from annotate.models import Guideline, Project
from rlhf_platform.accounts.models import User, Workspace


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
    try:
        validate_slug(slug)
    except ValidationError:
        raise AnnotateError(
            f"{slug!r} cannot be a project's short name: use letters, digits, - and _"
        ) from None
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
