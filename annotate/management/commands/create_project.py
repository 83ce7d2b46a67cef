from __future__ import annotations

import json
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
        parser.add_argument(
            "--kind",
            choices=Project.Kind.values,
            help="what is asked (default: comparisons, or labels where --labels is given)",
        )
        parser.add_argument(
            "--form",
            type=Path,
            help="a JSON file: what is asked beside the answer (docs/how-to/ask-more.md)",
        )
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        guidelines = text_of(options["guidelines"]) if options["guidelines"] else ""
        listed = labels_from_text(text_of(options["labels"])) if options["labels"] else []
        default = Project.Kind.LABELS if options["labels"] else Project.Kind.COMPARISONS
        kind = options["kind"] or default
        form = json_of(options["form"]) if options["form"] else {}
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
            form=form,
        )
        if made:
            self.stdout.write(f"made workspace {slug}")
        self.stdout.write(f"made project {project.slug} ({project.name}) in workspace {slug}")
        bring = "texts" if kind == Project.Kind.LABELS else kind
        self.stdout.write(f"next: manage.py import_{bring} FILE --project {project.slug}")


def json_of(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{path} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise CommandError(f"{path} holds no JSON object")
    return found


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}") from None
