from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from annotate.management.base import FriendlyCommand, list_rows
from annotate.models import PromptSet
from annotate.selectors.lookup import find_workspace
from annotate.services.ingest import prompts_in, store_prompt_records


class Command(FriendlyCommand):
    help = "Import a prompt set from JSON lines, self-instruct files or plain text."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "file",
            type=Path,
            help="rows with prompt or instruction (JSON lines, Parquet), or lines of .txt",
        )
        parser.add_argument("--name", required=True, help="short name of the set")
        parser.add_argument(
            "--use",
            default="fresh",
            choices=PromptSet.Use.values,
            help="what the prompts are for (default: %(default)s)",
        )
        parser.add_argument(
            "--skip-bad",
            action="store_true",
            help="import the rest of a file with rows that cannot be used, and list those",
        )
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        workspace = find_workspace(options["workspace"])
        records, bad = prompts_in(path=options["file"], skip_bad=options["skip_bad"])
        prompt_set = store_prompt_records(
            workspace=workspace,
            records=records,
            name=options["name"],
            use=options["use"],
        )
        count = prompt_set.entries.count()
        self.stdout.write(f"prompt set {prompt_set} ({prompt_set.use}): {count} prompts")
        if len(records) > count:
            self.stdout.write(f"  {len(records) - count} rows repeat a prompt")
        list_rows(self.stdout, "left out", bad)
