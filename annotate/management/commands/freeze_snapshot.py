from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from annotate.management.arguments import add_project, project_named, told_plainly
from annotate.services.freezing import freeze_snapshot


class Command(BaseCommand):
    help = "Freeze a project's preferences into an immutable, hashed snapshot."

    def add_arguments(self, parser: CommandParser) -> None:
        add_project(parser)
        parser.add_argument(
            "--test-fraction",
            type=float,
            default=0.2,
            help="share of the prompts held out, drawn by hash; default: %(default)s",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        project = project_named(options["workspace"], options["project"])
        with told_plainly():
            snapshot = freeze_snapshot(project=project, test_fraction=options["test_fraction"])
        dropped = ", ".join(f"{n:,} {why}" for why, n in snapshot.summary["dropped"].items() if n)
        self.stdout.write(
            f"Snapshot {snapshot.pk} ({project.slug} number {snapshot.number}): "
            f"{snapshot.n_train:,} train rows, {snapshot.n_test:,} held out; "
            f"dropped: {dropped or 'none'}."
        )
        self.stdout.write(f"  sha256 {snapshot.sha256}")
        self.stdout.write(f"Next: manage.py export_snapshot {snapshot.pk} --out DIR")
