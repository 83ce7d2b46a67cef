from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotate.management.arguments import add_workspace, told_plainly
from annotate.services.projects import create_project, open_workspace


class Command(BaseCommand):
    help = "Create a labelling project, and the workspace it belongs to if that does not exist."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="short name: letters, digits, hyphens, underscores")
        parser.add_argument("--name", help="what people read; default: made from the short name")
        parser.add_argument(
            "--overlap",
            type=int,
            default=1,
            help="people who judge each pair; default: %(default)s",
        )
        parser.add_argument(
            "--guidelines", type=Path, metavar="FILE", help="UTF-8 text or Markdown"
        )
        add_workspace(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        slug = options["slug"]
        with told_plainly():
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
            f"Project {project.slug} ({project.name}) in workspace {workspace.slug}: "
            f"{project.overlap} per pair, guidelines version 1"
            f"{'' if guidelines else ' (empty)'}."
        )
        self.stdout.write(f"Next: manage.py import_comparisons FILE --project {project.slug}")


def _guidelines(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
