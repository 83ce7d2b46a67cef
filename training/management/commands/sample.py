from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from annotate.models import Comparison
from annotate.selectors.lookup import find_project, find_prompt_set
from training.management.base import TrainingCommand
from training.services.launching import launch_sampling


class Command(TrainingCommand):
    help = "Let a model answer prompts and open the pairs for judgment, before or after training."

    def create_parser(self, *args: Any, **kwargs: Any) -> CommandParser:
        # Django gives every command a --version of its own, which tells Django's.
        return super().create_parser(*args, conflict_handler="resolve", **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--version", required=True, dest="model", help="version id or base")
        parser.add_argument("--prompts", required=True, help="short name of a prompt set")
        parser.add_argument("--project", required=True)
        parser.add_argument("--max-new-tokens", type=int, default=64)
        parser.add_argument("--samples-per-prompt", type=int, default=2)
        parser.add_argument("--wait", action="store_true", help="show progress until it is over")
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        project = find_project(options["project"], workspace=options["workspace"])
        run = launch_sampling(
            project=project,
            version=self.version(options["model"], project.workspace),
            prompt_set=find_prompt_set(options["prompts"], workspace=project.workspace),
            config={
                "sample": {
                    "max_new_tokens": options["max_new_tokens"],
                    "samples_per_prompt": options["samples_per_prompt"],
                }
            },
        )
        self.stdout.write(f"queued {run}")
        if not options["wait"]:
            self.stdout.write("a worker runs it: manage.py worker")
            return
        self.wait_for(run)
        opened = Comparison.objects.filter(project=project, origin_reference=f"run:{run.pk}")
        self.stdout.write(f"{opened.count()} comparisons are open for judgment")
