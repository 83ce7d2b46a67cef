from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from annotate.management.base import FriendlyCommand
from annotate.services.projects import create_project, open_workspace


class Command(FriendlyCommand):
    help = "Make a project (and its workspace, where that is missing)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="short name: letters, digits, - and _")
        parser.add_argument("--name", help="full name (default: from the short one)")
        parser.add_argument("--overlap", type=int, default=1, help="judgments per comparison")
        parser.add_argument("--guidelines", type=Path, help="a text file (Markdown)")
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        slug = options["slug"]
        guidelines = _guidelines(options["guidelines"])
        workspace = open_workspace(slug=options["workspace"])
        project = create_project(
            workspace=workspace,
            name=options["name"] or slug.replace("-", " ").replace("_", " ").capitalize(),
            slug=slug,
            overlap=options["overlap"],
            guidelines=guidelines,
        )
        self.stdout.write(
            f"made project {project.slug} ({project.name}) in workspace {workspace.slug}"
        )
        self.stdout.write(f"next: manage.py import_comparisons FILE --project {project.slug}")


def _guidelines(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from None
