from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from annotate.management.base import FriendlyCommand, list_rows
from annotate.selectors.lookup import find_project
from annotate.services.texts import import_texts


class Command(FriendlyCommand):
    help = "Import texts that wait for a label, some perhaps with a known one."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "file",
            type=Path,
            help="JSON lines, Parquet, or .csv and .tsv with a header; columns text (or prompt, "
            "with or without response) and perhaps label",
        )
        parser.add_argument("--project", required=True, help="short name of a project of labels")
        parser.add_argument(
            "--skip-bad",
            action="store_true",
            help="import the rest of a file with rows that cannot be used, and list those",
        )
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        project = find_project(options["project"], workspace=options["workspace"])
        report = import_texts(project=project, path=options["file"], skip_bad=options["skip_bad"])
        self.stdout.write(f"texts: {report.texts_new} new, {report.texts_seen} already there")
        self.stdout.write(f"known labels: {report.known_labels} of the new ones")
        list_rows(self.stdout, "left out", report.bad_rows)
        list_rows(self.stdout, "not stored, the earlier label stands", report.contradictions)
        self.stdout.write(f"next: judge them at /judge/{project.slug}/")
