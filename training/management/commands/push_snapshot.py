from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from annotate.export.writers import FORMATS
from annotate.selectors.lookup import find_snapshot
from training.management.base import TrainingCommand
from training.services.publishing import push_snapshot


class Command(TrainingCommand):
    help = "Push a snapshot to the Hub as a dataset: one commit, private unless --public."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("snapshot", type=int, help="the snapshot's id")
        parser.add_argument("--repo", required=True, metavar="OWNER/NAME")
        parser.add_argument("--format", default="parquet", choices=FORMATS)
        parser.add_argument("--public", action="store_true", help="make or use a public repository")

    def work(self, **options: Any) -> None:
        pushed = push_snapshot(
            snapshot=find_snapshot(options["snapshot"]),
            repo=options["repo"],
            public=options["public"],
            format=options["format"],
        )
        self.stdout.write(f"pushed to {pushed.url} (commit {pushed.commit})")
