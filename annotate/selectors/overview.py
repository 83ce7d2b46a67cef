"""Every project of a workspace as an admin asks about it."""

from __future__ import annotations

from dataclasses import dataclass

from annotate.models import Project
from annotate.selectors.forecast import Forecast, project_forecast
from annotate.selectors.progress import Progress, queue_progress
from annotate.selectors.quality import Agreement, Share, position_share, remembered_agreement
from annotate.selectors.throughput import Pace, annotator_throughput
from rlhf_platform.accounts.models import Workspace

#: Projects the overview spells out; closed ones come last.
NEWEST = 20


@dataclass(frozen=True)
class ProjectReport:
    project: Project
    progress: Progress
    agreement: Agreement
    share: Share
    forecast: Forecast
    paces: list[Pace]


def project_reports(*, workspace: Workspace) -> list[ProjectReport]:
    found = Project.objects.filter(workspace=workspace).order_by("-state", "name")
    return [
        ProjectReport(
            project=project,
            progress=queue_progress(project=project),
            agreement=remembered_agreement(project=project),
            share=position_share(project=project),
            forecast=project_forecast(project=project),
            paces=annotator_throughput(project=project),
        )
        for project in found[:NEWEST]
    ]
