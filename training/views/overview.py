"""The admin's page: one question a card, each answered in a sentence with its number."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from annotate.selectors.overview import project_reports
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role
from training.selectors.costs import run_costs
from training.selectors.queues import bad_ends, queue_states


@require_safe
@requires(Role.ADMIN)
def overview(request: MemberRequest) -> HttpResponse:
    workspace = request.membership.workspace
    reports = project_reports(workspace=workspace)
    paces = [(report.project, pace) for report in reports for pace in report.paces]
    queues = queue_states(workspace=workspace)
    costs = run_costs(workspace=workspace)
    context = {
        "reports": reports,
        "paces": paces,
        "fastest": max((pace.judgments_per_hour or 0 for _, pace in paces), default=0),
        "queues": queues,
        "stuck": [queue for queue in queues if queue.stuck],
        "bad_ends": bad_ends(workspace=workspace),
        "costs": costs,
        "cost_s": sum(cost.seconds for cost in costs),
        "dearest": max((cost.seconds for cost in costs), default=0),
    }
    return render(request, "training/overview.html", context)
