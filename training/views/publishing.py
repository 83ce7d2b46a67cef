"""The buttons that push to the Hub: each queues a job and goes back to where it was pressed."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST

from annotate.errors import AnnotateError
from annotate.models import Snapshot
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role
from training.models import Job, ModelVersion
from training.services.publishing import queue_model_push, queue_snapshot_push


@require_POST
@requires(Role.RESEARCHER)
def push_snapshot(request: MemberRequest, pk: int) -> HttpResponse:
    snapshot = get_object_or_404(Snapshot, pk=pk, workspace=request.membership.workspace)
    ask(
        request,
        lambda repo, public: queue_snapshot_push(snapshot=snapshot, repo=repo, public=public),
    )
    return redirect("project", slug=snapshot.project.slug)


@require_POST
@requires(Role.RESEARCHER)
def push_model(request: MemberRequest, pk: int) -> HttpResponse:
    version = get_object_or_404(ModelVersion, pk=pk, workspace=request.membership.workspace)
    ask(request, lambda repo, public: queue_model_push(version=version, repo=repo, public=public))
    return redirect("version", pk=pk)


def ask(request: MemberRequest, queue: Callable[[str, bool], Job]) -> None:
    """Queue the push that the form asks for, and say so."""
    repo = request.POST.get("repo", "").strip()
    public = request.POST.get("public") == "on"
    try:
        queue(repo, public)
    except AnnotateError as error:
        messages.error(request, str(error))
    else:
        kind = "public" if public else "private"
        messages.success(request, f"The push to {repo} ({kind}) is queued; a worker does it.")
