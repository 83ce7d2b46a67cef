from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from annotate.management.base import FriendlyCommand
from annotate.selectors.lookup import find_project
from annotate.selectors.quality import project_agreement
from annotate.services.aggregation import aggregate_project


class Command(FriendlyCommand):
    help = "Turn a project's judgments into preferences, and say how far people agree."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True)
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        project = find_project(options["project"], workspace=options["workspace"])
        aggregation = aggregate_project(project=project)
        self.stdout.write(f"aggregation {aggregation.pk} ({aggregation.rule['name']}):")
        for name, count in aggregation.summary.items():
            self.stdout.write(f"  {name}: {count}")
        found = project_agreement(project=project)
        if found.alpha is None:
            self.stdout.write(f"agreement: not available, {found.reason}")
        else:
            low = "?" if found.low is None else f"{found.low:.3f}"
            high = "?" if found.high is None else f"{found.high:.3f}"
            self.stdout.write(
                f"agreement: Krippendorff's alpha {found.alpha:.3f} [{low} to {high}] on "
                f"{found.n_comparisons} comparisons by {found.n_annotators} annotators"
            )
        self.stdout.write(f"next: manage.py freeze_snapshot --project {project.slug}")
