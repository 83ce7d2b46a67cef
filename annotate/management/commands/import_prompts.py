from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from annotate.management.base import FriendlyCommand
from annotate.models import PromptSet
from annotate.selectors.lookup import find_workspace
from annotate.services.ingest import import_prompts


class Command(FriendlyCommand):
    help = "Import a prompt set from JSON lines, self-instruct files or plain text."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--name", required=True, help="short name of the set")
        parser.add_argument("--use", default="fresh", choices=PromptSet.Use.values)
        parser.add_argument("--skip-bad", action="store_true")
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        prompt_set = import_prompts(
            workspace=find_workspace(options["workspace"]),
            path=options["file"],
            name=options["name"],
            use=options["use"],
            skip_bad=options["skip_bad"],
        )
        self.stdout.write(
            f"prompt set {prompt_set} ({prompt_set.use}): {prompt_set.entries.count()} prompts"
        )
