from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from annotate.management.base import FriendlyCommand, list_rows
from annotate.selectors.lookup import find_project
from annotate.services.rankings import import_rankings


class Command(FriendlyCommand):
    help = "Import prompts with four to nine responses each, to be put in order."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "file",
            type=Path,
            help="JSON lines or Parquet; columns prompt (or instruction) and responses (a list of "
            "texts) or completions (UltraFeedback's); with an order: ranks (a number each, 1 is "
            "best) and annotator",
        )
        parser.add_argument("--project", required=True, help="short name of a project of rankings")
        parser.add_argument(
            "--skip-bad",
            action="store_true",
            help="import the rest of a file with rows that cannot be used, and list those",
        )
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        project = find_project(options["project"], workspace=options["workspace"])
        report = import_rankings(
            project=project, path=options["file"], skip_bad=options["skip_bad"]
        )
        self.stdout.write(
            f"rankings: {report.rankings_new} new, {report.rankings_seen} already there"
        )
        if report.judgments_new or report.judgments_seen:
            self.stdout.write(
                f"orders: {report.judgments_new} new, {report.judgments_seen} already there"
            )
        list_rows(self.stdout, "left out", report.bad_rows)
        list_rows(self.stdout, "contradicts an earlier order, not stored", report.contradictions)
        self.stdout.write(f"next: judge them at /judge/{project.slug}/")
