from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from annotate.formats.preferences import FORMATS
from annotate.management.arguments import add_project, list_rows, project_named, told_plainly
from annotate.services.ingest import import_comparisons


class Command(BaseCommand):
    help = "Import pairs and the judgments of them. Importing a file again changes nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help=".jsonl, .jsonl.gz, .json or .parquet")
        add_project(parser)
        parser.add_argument(
            "--format", choices=["auto", *FORMATS], default="auto", help="default: %(default)s"
        )
        parser.add_argument(
            "--skip-bad", action="store_true", help="import the sound rows and list the others"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        project = project_named(options["workspace"], options["project"])
        with told_plainly():
            report = import_comparisons(
                project=project,
                path=options["file"],
                format=options["format"],
                skip_bad=options["skip_bad"],
            )
        self.stdout.write(
            f"{options['file']} ({report.format}) into {project.slug}, {report.rows:,} rows:"
        )
        repeated = report.rows - report.comparisons_new - report.comparisons_seen
        if repeated:
            self.stdout.write(f"  {repeated:,} rows repeat a pair of the file and count once")
        self.stdout.write(
            f"  comparisons: {report.comparisons_new:,} new, {report.comparisons_seen:,} known"
        )
        self.stdout.write(
            f"  judgments:   {report.judgments_new:,} new, {report.judgments_seen:,} known"
        )
        list_rows(self.stdout, "Not imported, not sound", report.bad_rows)
        list_rows(self.stdout, "Left out, nothing to store", report.left_out)
        self.stdout.write(f"Next: manage.py aggregate --project {project.slug}")
