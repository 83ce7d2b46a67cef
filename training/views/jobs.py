"""The queues, one job, and what a person may do to it."""

from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.text import capfirst
from django.views.decorators.http import require_POST, require_safe

from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role
from training.errors import TrainingError
from training.models import Job
from training.selectors.jobs import job_story
from training.selectors.queues import jobs_of, queue_states, state_counts
from training.selectors.workers import workers_seen
from training.services.controlling import cancel_job, retry_job

PER_PAGE = 50


@require_safe
@requires(Role.RESEARCHER)
def jobs(request: MemberRequest) -> HttpResponse:
    workspace = request.membership.workspace
    state = request.GET.get("state", "")
    state = state if state in Job.State.values else ""
    found = jobs_of(workspace=workspace, state=state)
    context = {
        "page": Paginator(found, PER_PAGE).get_page(request.GET.get("page")),
        "state": state,
        "counts": state_counts(workspace=workspace),
        "queues": queue_states(workspace=workspace),
        "workers": workers_seen(workspace=workspace),
    }
    return render(request, "training/jobs.html", context)


@require_safe
@requires(Role.RESEARCHER)
def job(request: MemberRequest, pk: int) -> HttpResponse:
    """One job: how it stands and why, every attempt at it, and what to do."""
    found = job_of(request, pk)
    return render(request, "training/job.html", {"job": found, "story": job_story(found)})


def job_of(request: MemberRequest, pk: int) -> Job:
    return get_object_or_404(
        Job.objects.select_related("run__output", "run__round", "round__project"),
        pk=pk,
        workspace=request.membership.workspace,
    )


@require_POST
@requires(Role.RESEARCHER)
def decide(request: MemberRequest, pk: int, verb: str) -> HttpResponse:
    found = job_of(request, pk)
    try:
        if verb == "cancel":
            cancel_job(job=found)
            found.refresh_from_db()
            ended = found.state == Job.State.CANCELLED
            messages.info(request, f"Job {pk} is {'cancelled' if ended else 'being cancelled'}.")
        else:
            retry_job(job=found)
            messages.info(request, f"Job {pk} is in the queue again.")
    except TrainingError as error:
        messages.error(request, f"{capfirst(str(error))}.")
    return redirect("job", pk=pk)
