from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from annotate.management.base import FriendlyCommand
from annotate.selectors.lookup import find_project
from annotate.services.aggregation import aggregate_project, outcomes_of


class Command(FriendlyCommand):
    help = "Turn a project's judgments into preferences, and say how far people agree."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True, help="short name of the project")
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        project = find_project(options["project"], workspace=options["workspace"])
        aggregation = aggregate_project(project=project)
        summary = aggregation.summary
        self.stdout.write(
            f"aggregation {aggregation.pk} ({aggregation.rule['name']}): "
            f"{summary['judgments']} judgments on {summary['comparisons']} comparisons"
        )
        counts = ", ".join(f"{name} {summary[name]}" for name in outcomes_of(project))
        self.stdout.write(f"  {counts}")
        self.stdout.write(f"  {agreement(summary['agreement'])}")
        if summary["comparisons"]:
            self.stdout.write(f"next: manage.py freeze_snapshot --project {project.slug}")
        else:
            self.stdout.write(f"next: import or make judgments in {project.slug}")


def agreement(found: dict[str, Any]) -> str:
    if found["alpha"] is None:
        return f"agreement: not available, {found['reason']}"
    interval = found["reason"]
    if found["low"] is not None:
        interval = f"95 % interval {found['low']:.3f} to {found['high']:.3f}"
    return (
        f"agreement: Krippendorff's alpha {found['alpha']:.3f} ({interval}) on "
        f"{found['n_comparisons']} comparisons by {found['n_annotators']} annotators"
    )
