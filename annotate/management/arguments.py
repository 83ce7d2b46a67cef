"""Options that several commands share, and errors worded for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from django.core.management.base import CommandError, CommandParser, OutputWrapper

from annotate.errors import AnnotateError, BadRow
from annotate.models import Project
from rlhf_platform.accounts.models import Workspace

DEFAULT_WORKSPACE = "main"
#: Rows named on the terminal.
LISTED_ROWS = 20


def add_workspace(parser: CommandParser) -> None:
    parser.add_argument(
        "--workspace", default=DEFAULT_WORKSPACE, metavar="SLUG", help="default: %(default)s"
    )


def add_project(parser: CommandParser) -> None:
    parser.add_argument("--project", required=True, metavar="SLUG", help="the project's short name")
    add_workspace(parser)


def workspace_named(slug: str) -> Workspace:
    try:
        return Workspace.objects.get(slug=slug)
    except Workspace.DoesNotExist:
        known = _listed(Workspace.objects.order_by("slug").values_list("slug", flat=True))
        raise CommandError(
            f"There is no workspace {slug!r}; there {known}. "
            "create_project makes one that does not exist."
        ) from None


def project_named(workspace_slug: str, slug: str) -> Project:
    workspace = workspace_named(workspace_slug)
    try:
        return Project.objects.select_related("workspace").get(workspace=workspace, slug=slug)
    except Project.DoesNotExist:
        known = _listed(workspace.projects.order_by("slug").values_list("slug", flat=True))
        raise CommandError(
            f"There is no project {slug!r} in the workspace {workspace_slug!r}; there {known}. "
            f"Make it with: manage.py create_project {slug}"
        ) from None


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn what can go wrong for the person at the terminal into one sentence."""
    try:
        yield
    except AnnotateError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise CommandError(f"{where}{error.strerror or error}") from error


def list_rows(out: OutputWrapper, title: str, rows: Sequence[BadRow]) -> None:
    if not rows:
        return
    out.write(f"{title} ({len(rows):,}):")
    for row in rows[:LISTED_ROWS]:
        out.write(f"  {row}")
    if len(rows) > LISTED_ROWS:
        out.write(f"  and {len(rows) - LISTED_ROWS:,} more")


def _listed(slugs: Iterable[str]) -> str:
    names = ", ".join(slugs)
    return f"are: {names}" if names else "are none"
