"""The registry: every model version with the line that leads to it."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role
from training.errors import TrainingError
from training.forms import SampleForm
from training.models import ModelVersion
from training.selectors.lineage import version_lineage
from training.selectors.logs import adapter_files
from training.selectors.registry import registry
from training.selectors.results import run_measures
from training.selectors.ties import ties_of
from training.services.launching import launch_sampling


@require_safe
@requires(Role.RESEARCHER)
def versions(request: MemberRequest) -> HttpResponse:
    groups = registry(workspace=request.membership.workspace)
    return render(request, "training/versions.html", {"groups": groups})


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.RESEARCHER)
def version(request: MemberRequest, pk: int) -> HttpResponse:
    """One version, and the form that lets it answer prompts."""
    workspace = request.membership.workspace
    found = get_object_or_404(
        ModelVersion.objects.select_related("parent", "project", "run__round__snapshot__project"),
        pk=pk,
        workspace=workspace,
    )
    form = SampleForm(request.POST or None, workspace=workspace)
    if request.method == "POST" and form.is_valid():
        try:
            run = launch_sampling(version=found, **form.cleaned_data)
        except TrainingError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, "Queued: its answers become comparisons when it has ended.")
            return redirect("run", pk=run.pk)
    context = {
        "version": found,
        "lineage": version_lineage(found),
        "measures": run_measures(found.run) if found.run else [],
        "ties": ties_of(found),
        "files": adapter_files(found),
        "children": found.children.order_by("-pk"),
        "rounds": found.rounds_from_here.select_related("project").order_by("-pk")[:20],
        "form": form,
        "samples": found.writes,
    }
    return render(request, "training/version.html", context, status=422 if form.errors else 200)
