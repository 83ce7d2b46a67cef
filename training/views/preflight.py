"""What is wrong with a snapshot's rows, looked at before a launch."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from annotate.models import Snapshot
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role
from training.selectors.preflight import snapshot_preflight


def context_of(request: MemberRequest, pk: int) -> dict[str, object]:
    snapshot = get_object_or_404(
        Snapshot.objects.select_related("project"), pk=pk, workspace=request.membership.workspace
    )
    return {"snapshot": snapshot, "preflight": snapshot_preflight(snapshot=snapshot)}


@require_safe
@requires(Role.RESEARCHER)
def preflight(request: MemberRequest, pk: int) -> HttpResponse:
    return render(request, "training/preflight.html", context_of(request, pk))


@require_safe
@requires(Role.RESEARCHER)
def preflight_panel(request: MemberRequest, pk: int) -> HttpResponse:
    """The table alone, for the launch form's module to show."""
    return render(request, "training/preflight_panel.html", context_of(request, pk))
