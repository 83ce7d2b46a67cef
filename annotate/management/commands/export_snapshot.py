from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from annotate.export.writers import FORMATS, export_snapshot
from annotate.management.base import FriendlyCommand
from annotate.selectors.lookup import find_snapshot


class Command(FriendlyCommand):
    help = "Write a snapshot as a folder that datasets.load_dataset and TRL read as it is."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("snapshot", type=int, help="the snapshot's id")
        parser.add_argument(
            "--out", type=Path, required=True, help="a folder: new, empty, or an earlier export"
        )
        parser.add_argument(
            "--format",
            default="parquet",
            choices=FORMATS,
            help="of the data files (default: %(default)s)",
        )

    def work(self, **options: Any) -> None:
        snapshot = find_snapshot(options["snapshot"])
        folder = export_snapshot(snapshot=snapshot, folder=options["out"], format=options["format"])
        self.stdout.write(f"wrote {snapshot.n_train + snapshot.n_test} rows to {folder}")
        self.stdout.write(f"  sha256 {snapshot.sha256}")
