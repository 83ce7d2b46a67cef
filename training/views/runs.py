"""One run: its state, its attempts, its settings, its curves, and the end of its log."""

from __future__ import annotations

import json

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role
from training.models import Job, Run
from training.selectors.attempts import config_differences, phases, run_history, run_samples
from training.selectors.events import run_pace
from training.selectors.logs import log_tail
from training.selectors.reasons import advice
from training.selectors.results import run_measures
from training.selectors.runs import run_curves
from training.selectors.watching import TRAINED, run_warnings
from training.services.queueing import FINAL


@require_safe
@requires(Role.RESEARCHER)
def run(request: MemberRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(
        Run.objects.select_related("job", "version", "output", "round__project", "round__snapshot"),
        pk=pk,
        workspace=request.membership.workspace,
    )
    earlier, differences = config_differences(found)
    ended_badly = found.job.state in (Job.State.FAILED, Job.State.CANCELLED)
    context = {
        "run": found,
        "over": found.job.state in FINAL,
        "pace": run_pace(found),
        "advice": advice(found.job.reason) if ended_badly else None,
        "history": run_history(found),
        "phases": phases(found),
        "measures": run_measures(found),
        "curves": run_curves(found) if found.method in TRAINED else [],
        "warnings": [message for _, message in run_warnings([found])],
        "samples": run_samples(found),
        "config": json.dumps(found.config, indent=2, ensure_ascii=False),
        "earlier": earlier,
        "differences": differences,
        "log": log_tail(found),
        "can_stop": found.job.state in (Job.State.QUEUED, Job.State.RUNNING),
    }
    return render(request, "training/run.html", context)
