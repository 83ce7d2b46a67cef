from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from annotate.management.arguments import add_workspace, list_rows, told_plainly, workspace_named
from annotate.models import PromptSet
from annotate.services.ingest import prompts_in, store_prompt_set


class Command(BaseCommand):
    help = "Import a named set of prompts; a new version of it only where the list has changed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "file",
            type=Path,
            help="JSON lines with prompt, messages or instruction; or .txt with one prompt a line",
        )
        parser.add_argument("--name", required=True, help="short name of the set")
        parser.add_argument(
            "--use", choices=PromptSet.Use.values, required=True, help="what it may be used for"
        )
        parser.add_argument(
            "--skip-bad", action="store_true", help="import the sound rows and list the others"
        )
        add_workspace(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        workspace = workspace_named(options["workspace"])
        with told_plainly():
            source = prompts_in(path=options["file"], skip_bad=options["skip_bad"])
            prompt_set = store_prompt_set(
                workspace=workspace,
                records=source.records,
                name=options["name"],
                use=options["use"],
            )
        count = prompt_set.entries.count()
        self.stdout.write(
            f"Prompt set {prompt_set.name} version {prompt_set.version} ({prompt_set.use}): "
            f"{count:,} prompts."
        )
        repeated = len(source.records) - count
        if repeated:
            self.stdout.write(f"  {repeated:,} rows repeat a prompt and count once.")
        list_rows(self.stdout, "Not imported, not sound", source.bad_rows)
