"""The researcher's view of labelling: projects, their queue, their agreement, their snapshots."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from annotate.errors import AnnotateError
from annotate.models import Project
from annotate.selectors.progress import queue_progress
from annotate.selectors.quality import annotator_matrix, position_share, project_agreement
from annotate.selectors.throughput import annotator_throughput
from annotate.services.freezing import freeze_snapshot
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role


@require_safe
@requires(Role.RESEARCHER)
def projects(request: MemberRequest) -> HttpResponse:
    found = Project.objects.filter(workspace=request.membership.workspace).order_by("name")
    rows = [(project, queue_progress(project=project)) for project in found]
    return render(request, "annotate/projects.html", {"rows": rows})


@require_safe
@requires(Role.RESEARCHER)
def project(request: MemberRequest, slug: str) -> HttpResponse:
    """One project: can its labels be trusted, who judges how fast, what was frozen."""
    found = get_object_or_404(Project, workspace=request.membership.workspace, slug=slug)
    context = {
        "project": found,
        "progress": queue_progress(project=found),
        "agreement": project_agreement(project=found),
        "share": position_share(project=found),
        "paces": annotator_throughput(project=found),
        "matrix": annotator_matrix(project=found),
        "snapshots": found.snapshots.order_by("-number"),
        "rounds": found.rounds.order_by("-number"),
    }
    return render(request, "annotate/project.html", context)


@require_POST
@requires(Role.RESEARCHER)
def freeze(request: MemberRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Project, workspace=request.membership.workspace, slug=slug)
    try:
        snapshot = freeze_snapshot(project=found, actor=request.user)
    except AnnotateError as error:
        messages.error(request, str(error))
    else:
        messages.success(
            request,
            f"Snapshot {snapshot.number} is frozen: {snapshot.n_train} train rows, "
            f"{snapshot.n_test} held out.",
        )
    return redirect("project", slug=slug)
