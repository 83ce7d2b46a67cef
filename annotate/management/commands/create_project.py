from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from annotate.management.base import FriendlyCommand
from annotate.models import Project
from annotate.services.labels import labels_from_text
from annotate.services.projects import create_project, open_workspace


class Command(FriendlyCommand):
    help = "Make a project (and its workspace, where that is missing)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="short name: letters, digits, - and _")
        parser.add_argument("--name", help="full name (default: the short one)")
        parser.add_argument(
            "--overlap", type=int, default=1, help="judgments per comparison (default: %(default)s)"
        )
        parser.add_argument("--guidelines", type=Path, help="a text file (Markdown)")
        parser.add_argument(
            "--labels",
            type=Path,
            help="makes it a project of labels: a file of lines “name [key]: definition”",
        )
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        guidelines = text_of(options["guidelines"]) if options["guidelines"] else ""
        listed = labels_from_text(text_of(options["labels"])) if options["labels"] else []
        kind = Project.Kind.LABELS if options["labels"] else Project.Kind.COMPARISONS
        slug = options["workspace"]
        workspace, made = open_workspace(slug=slug)
        project = create_project(
            workspace=workspace,
            name=options["name"] or options["slug"].replace("-", " ").capitalize(),
            slug=options["slug"],
            overlap=options["overlap"],
            guidelines=guidelines,
            kind=kind,
            labels=listed,
        )
        if made:
            self.stdout.write(f"made workspace {slug}")
        self.stdout.write(f"made project {project.slug} ({project.name}) in workspace {slug}")
        bring = "import_texts" if options["labels"] else "import_comparisons"
        self.stdout.write(f"next: manage.py {bring} FILE --project {project.slug}")


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}") from None
