from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from training.management.base import TrainingCommand
from training.selectors.lookup import find_version
from training.services.publishing import push_model


class Command(TrainingCommand):
    help = (
        "Push a model version (an adapter, or a whole model) to the Hub: one commit, private "
        "unless --public."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", type=int, metavar="version", help="the version's id")
        parser.add_argument("--repo", required=True, metavar="OWNER/NAME")
        parser.add_argument("--public", action="store_true", help="make or use a public repository")

    def work(self, **options: Any) -> None:
        pushed = push_model(
            version=find_version(options["model"]),
            repo=options["repo"],
            public=options["public"],
        )
        self.stdout.write(f"pushed to {pushed.url} (commit {pushed.commit})")
