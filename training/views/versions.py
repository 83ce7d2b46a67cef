"""The registry: every model version with the line that leads to it."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role
from training.models import ModelVersion
from training.selectors.lineage import version_lineage


@require_safe
@requires(Role.RESEARCHER)
def versions(request: MemberRequest) -> HttpResponse:
    found = ModelVersion.objects.filter(workspace=request.membership.workspace)
    found = found.select_related("parent", "run__round").order_by("-pk")
    return render(request, "training/versions.html", {"versions": found})


@require_safe
@requires(Role.RESEARCHER)
def version(request: MemberRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(
        ModelVersion.objects.select_related("parent", "run__round__snapshot"),
        pk=pk,
        workspace=request.membership.workspace,
    )
    context = {"version": found, "lineage": version_lineage(found)}
    return render(request, "training/version.html", context)
