from __future__ import annotations

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from annotate.templatetags.figures import size
from training.management.base import TrainingCommand
from training.services.retention import prune_checkpoints, prune_judgings


def days(text: str) -> int:
    """A number of days. Raises ArgumentTypeError."""
    if not text.isdecimal() or len(text) > 5:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days (0 or more)")
    return int(text)


class Command(TrainingCommand):
    help = (
        "Delete checkpoints and judgings nobody will go on from; adapters, events and results of "
        "runs always stay."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only say what would be freed")
        parser.add_argument(
            "--older-than",
            type=days,
            metavar="DAYS",
            help="of what ended so long ago (default: CHECKPOINT_KEEP_DAYS; 0 for all)",
        )

    def work(self, **options: Any) -> None:
        asked = options["older_than"]
        checkpoints = prune_checkpoints(older_than_days=asked, dry_run=options["dry_run"])
        judgings = prune_judgings(older_than_days=asked, dry_run=options["dry_run"])
        for one in checkpoints:
            self.stdout.write(f"{size(one.size_bytes):>9}  {one.run.folder}/{one.path}")
        for each in judgings:
            self.stdout.write(f"{size(each.size_bytes):>9}  {each.path}")
        total = size(
            sum(one.size_bytes for one in checkpoints) + sum(each.size_bytes for each in judgings)
        )
        verb = "would be freed" if options["dry_run"] else "freed"
        if checkpoints or judgings:
            and_judgings = f" and {len(judgings)} judgings" if judgings else ""
            self.stdout.write(f"{total} {verb}, {len(checkpoints)} checkpoints{and_judgings}")
        elif asked is None and not settings.CHECKPOINT_KEEP_DAYS:
            self.stdout.write("nothing: CHECKPOINT_KEEP_DAYS is 0, which keeps all for ever")
        else:
            self.stdout.write("nothing to delete")
