"""One run: its state, its settings, its curves, its answers. Its attempts are its job's."""

from __future__ import annotations

import json

from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role
from training.models import Run
from training.selectors.alarms import run_alarms
from training.selectors.answers import answering
from training.selectors.attempts import config_differences, phases, run_samples
from training.selectors.checkpoints import run_checkpoints
from training.selectors.classification import classification
from training.selectors.compared import comparison
from training.selectors.evaluations import evaluation_parts, report_path, run_frontier
from training.selectors.events import run_pace
from training.selectors.findings import pretraining
from training.selectors.jobs import job_standing
from training.selectors.preflight import run_preflight
from training.selectors.results import run_measures
from training.selectors.runs import run_curves
from training.selectors.stops import run_stops
from training.selectors.watching import TRAINED, run_warnings
from training.services.queueing import FINAL

#: A report holds what models wrote: in the browser it may run nothing, load nothing and be nobody.
SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@require_safe
@requires(Role.RESEARCHER)
def run(request: MemberRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(
        Run.objects.select_related(
            "job",
            "calibration",
            "version",
            "output",
            "round__project",
            "round__snapshot",
            "snapshot__project",
            "text_set",
            "documents",
        ),
        pk=pk,
        workspace=request.membership.workspace,
    )
    earlier, differences = config_differences(found)
    alarms, stops = run_alarms([found]), run_stops([found])
    told = {stop.why for stop in stops}
    context = {
        "run": found,
        "over": found.job.state in FINAL,
        "pace": run_pace(found),
        "standing": job_standing(found.job, run_checkpoints(found)),
        "phases": phases(found),
        "measures": run_measures(found),
        "classified": classification(found),
        "sides": pretraining(found),
        "answers": answering(found),
        "compared": comparison(found),
        "parts": evaluation_parts(found),
        "frontier": run_frontier(found),
        "has_report": report_path(found) is not None,
        "curves": run_curves(found, alarms) if found.method in TRAINED else [],
        "stops": stops,
        "alarms": alarms,
        "preflight": run_preflight(found),
        "warnings": [
            message
            for _, message in run_warnings([found], about_rows=False)
            if message not in told  # a budget's stop is a warning too
        ],
        "samples": run_samples(found),
        "config": json.dumps(found.config, indent=2, ensure_ascii=False),
        "earlier": earlier,
        "differences": differences,
    }
    return render(request, "training/run.html", context)


@require_safe
@requires(Role.RESEARCHER)
def report(request: MemberRequest, pk: int) -> HttpResponse:
    """The report that an evaluation wrote, as it lies in the run's folder."""
    found = get_object_or_404(Run, pk=pk, workspace=request.membership.workspace)
    path = report_path(found)
    if path is None:
        raise Http404("This run has no report: it is no evaluation, has not ended, or was cleared.")
    response = HttpResponse(path.read_bytes(), content_type="text/html; charset=utf-8")
    response["Content-Security-Policy"] = SANDBOX
    response["X-Content-Type-Options"] = "nosniff"
    return response
