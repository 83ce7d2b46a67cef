from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from annotate.selectors.lookup import find_workspace
from training.management.base import TrainingCommand
from training.models import TextSet
from training.services.text_sets import ROWS, import_text_set


class Command(TrainingCommand):
    help = "Import texts to train on or to measure with: JSON lines, Parquet, CSV or plain text."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "file", type=Path, help="rows with text (and title), or a .txt, .md or .rst document"
        )
        parser.add_argument(
            "--kind",
            choices=TextSet.Kind.values,
            default=TextSet.Kind.DOCUMENTS,
            help="; ".join(ROWS.values()) + " (default: %(default)s)",
        )
        parser.add_argument("--source", default="", help="where the texts come from")
        parser.add_argument("--licence", default="", help="under which terms they may be used")
        parser.add_argument("--name", required=True, help="short name of the set")
        parser.add_argument(
            "--test-fraction",
            type=float,
            help="share that is only measured on (default: 0.1; labelled 0.2, questions 0.5)",
        )
        parser.add_argument(
            "--skip-bad",
            action="store_true",
            help="import the rest of a file with rows that cannot be used",
        )
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        made = import_text_set(
            workspace=find_workspace(options["workspace"]),
            path=options["file"],
            name=options["name"],
            kind=options["kind"],
            source=options["source"],
            licence=options["licence"],
            test_fraction=options["test_fraction"],
            skip_bad=options["skip_bad"],
        )
        what = made.get_kind_display().lower()
        self.stdout.write(
            f"text set {made} (id {made.pk}): {made.n_train} {what} to train on, "
            f"{made.n_held_out} held out, {made.size_bytes:,} bytes"
        )
