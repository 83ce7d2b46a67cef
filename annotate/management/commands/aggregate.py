from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from annotate.management.arguments import add_project, project_named, told_plainly
from annotate.services.aggregation import aggregate_project


class Command(BaseCommand):
    help = "Turn a project's judgments into preferences: a majority, with honest ties."

    def add_arguments(self, parser: CommandParser) -> None:
        add_project(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        project = project_named(options["workspace"], options["project"])
        with told_plainly():
            aggregation = aggregate_project(project=project)
        summary = aggregation.summary
        self.stdout.write(
            f"Aggregation {aggregation.pk} of {project.slug} by {aggregation.rule['name']}: "
            f"{summary['judgments']:,} judgments by {summary['annotators']} annotators "
            f"on {summary['comparisons']:,} comparisons."
        )
        outcomes = summary["outcomes"].items()
        self.stdout.write("  " + ", ".join(f"{outcome} {n:,}" for outcome, n in outcomes))
        self.stdout.write(f"  {_agreement(summary['agreement'])}")
        if not summary["comparisons"]:
            self.stdout.write(f"Next: import or make judgments in {project.slug}.")
            return
        self.stdout.write(f"Next: manage.py freeze_snapshot --project {project.slug}")


def _agreement(found: dict[str, Any]) -> str:
    if found["krippendorff_alpha"] is None:
        return f"No figure of agreement: {found['reason']}."
    text = f"Krippendorff's alpha {found['krippendorff_alpha']:.3f}"
    if found["low"] is not None:
        text += f" (95 % interval by prompt: {found['low']:.3f} to {found['high']:.3f})"
    return f"{text} on {found['comparisons']:,} comparisons judged more than once."
