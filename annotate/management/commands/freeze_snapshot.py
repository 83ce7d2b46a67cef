from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from annotate.management.base import FriendlyCommand
from annotate.selectors.lookup import find_judge, find_project
from annotate.services.freezing import freeze_snapshot


class Command(FriendlyCommand):
    help = "Freeze a project's preferences, aggregated as they stand, into a snapshot."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True, help="short name of the project")
        parser.add_argument(
            "--test-fraction",
            type=float,
            default=0.2,
            help="share of prompts held out (default: %(default)s)",
        )
        parser.add_argument(
            "--judge",
            help="a calibrated judge as NAME or NAME:VERSION, for what no person judged",
        )
        parser.add_argument(
            "--leave-out-known",
            action="store_true",
            help="judgments of people who said that they knew the model do not count",
        )
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        project = find_project(options["project"], workspace=options["workspace"])
        judge = None
        if options["judge"]:
            judge = find_judge(options["judge"], workspace=options["workspace"])
        snapshot = freeze_snapshot(
            project=project,
            test_fraction=options["test_fraction"],
            judge=judge,
            leave_out_known=options["leave_out_known"],
        )
        left_out = snapshot.summary["left_out"]
        self.stdout.write(f"snapshot {snapshot.pk} ({snapshot})")
        self.stdout.write(f"  train {snapshot.n_train}, test {snapshot.n_test}")
        self.stdout.write(
            "  left out: " + (", ".join(f"{n} {why}" for why, n in left_out.items()) or "nothing")
        )
        self.stdout.write(f"  sha256 {snapshot.sha256}")
        self.stdout.write(f"next: manage.py export_snapshot {snapshot.pk} --out FOLDER")
