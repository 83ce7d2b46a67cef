from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from annotate.formats.reading import FORMATS
from annotate.management.base import FriendlyCommand, list_rows
from annotate.selectors.lookup import find_project
from annotate.services.ingest import import_comparisons


class Command(FriendlyCommand):
    help = "Import pairs and their judgments: HH-RLHF, PandaLM or TRL preference files."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "file", type=Path, help="JSON lines or a JSON list (gzipped or not), or Parquet"
        )
        parser.add_argument("--project", required=True, help="short name of the project")
        parser.add_argument(
            "--format",
            default="auto",
            choices=["auto", *FORMATS],
            help="layout of the rows; auto looks at the first ones (default: %(default)s)",
        )
        parser.add_argument(
            "--skip-bad",
            action="store_true",
            help="import the rest of a file with rows that cannot be used, and list those",
        )
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        project = find_project(options["project"], workspace=options["workspace"])
        report = import_comparisons(
            project=project,
            path=options["file"],
            format=options["format"],
            skip_bad=options["skip_bad"],
        )
        self.stdout.write(
            f"comparisons: {report.comparisons_new} new, {report.comparisons_seen} already there"
        )
        self.stdout.write(
            f"judgments: {report.judgments_new} new, {report.judgments_seen} already there"
        )
        list_rows(self.stdout, "left out", report.bad_rows)
        list_rows(self.stdout, "not stored, the earlier answer stands", report.contradictions)
        self.stdout.write(f"next: manage.py aggregate --project {project.slug}")
