from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotate.export.writers import WRITERS, export_snapshot
from annotate.management.arguments import told_plainly
from annotate.models import Snapshot


class Command(BaseCommand):
    help = "Write a snapshot as a folder that datasets.load_dataset and TRL take as it is."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", type=int, help="the id that freeze_snapshot printed")
        parser.add_argument("--out", type=Path, required=True, metavar="DIR")
        parser.add_argument(
            "--format", choices=list(WRITERS), default="parquet", help="default: %(default)s"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        snapshot = Snapshot.objects.select_related("project").filter(pk=options["id"]).first()
        if snapshot is None:
            raise CommandError(f"There is no snapshot {options['id']}; {_known()}.")
        with told_plainly():
            folder = export_snapshot(
                snapshot=snapshot, folder=options["out"], format=options["format"]
            )
        self.stdout.write(
            f"Snapshot {snapshot.pk} ({snapshot.n_train:,} train rows, {snapshot.n_test:,} held "
            f"out) is in {folder}."
        )
        self.stdout.write(f"  sha256 {snapshot.sha256}")
        self.stdout.write(f'Next: datasets.load_dataset("{folder}")')


def _known() -> str:
    rows = Snapshot.objects.select_related("project").order_by("-pk")[:10]
    if not rows:
        return "none was frozen yet (manage.py freeze_snapshot --project SLUG)"
    return "there are: " + ", ".join(f"{row.pk} ({row.project.slug} {row.number})" for row in rows)
