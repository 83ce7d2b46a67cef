from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from annotate.management.base import FriendlyCommand
from annotate.services.projects import create_project
from rlhf_platform.accounts.models import Workspace


class Command(FriendlyCommand):
    help = "Make a project (and its workspace, where that is missing)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="short name: letters, digits, - and _")
        parser.add_argument("--name", help="full name (default: the short one)")
        parser.add_argument("--overlap", type=int, default=1, help="judgments per comparison")
        parser.add_argument("--guidelines", type=Path, help="a text file (Markdown)")
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        guidelines = ""
        if options["guidelines"]:
            try:
                guidelines = options["guidelines"].read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise CommandError(f"{options['guidelines']} cannot be read: {error}") from error
        slug = options["workspace"]
        workspace, made = Workspace.objects.get_or_create(
            slug=slug, defaults={"name": slug.replace("-", " ").title()}
        )
        project = create_project(
            workspace=workspace,
            name=options["name"] or options["slug"].replace("-", " ").capitalize(),
            slug=options["slug"],
            overlap=options["overlap"],
            guidelines=guidelines,
        )
        if made:
            self.stdout.write(f"made workspace {slug}")
        self.stdout.write(f"made project {project.slug} ({project.name}) in workspace {slug}")
        self.stdout.write(f"next: manage.py import_comparisons FILE --project {project.slug}")
