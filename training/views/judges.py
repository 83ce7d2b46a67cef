"""Machines that judge a project: registering one, letting it judge, accepting its calibration."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.text import capfirst
from django.views.decorators.http import require_http_methods, require_POST

from annotate.errors import AnnotateError
from annotate.models import JudgeVersion, Project
from annotate.selectors.judges import judges_of
from annotate.services.machine_judging import accept_calibration
from annotate.views.projects import project_of
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role
from training.errors import TrainingError
from training.judge_forms import AcceptForm, JudgeForm, JudgingForm
from training.selectors.judgings import cost_of, judge_standing, judgings_in, model_words
from training.services.judging_jobs import queue_judging
from training.services.machine_judging import judge_at
from training.services.versions import base_version


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.RESEARCHER)
def judges(request: MemberRequest, slug: str) -> HttpResponse:
    """The judges of the workspace with what they did in this project, and a form for another."""
    project = project_of(request, slug)
    base_version(workspace=project.workspace)
    form = JudgeForm(request.POST or None, project=project)
    if request.method == "POST" and form.is_valid():
        try:
            judge = judge_at(project=project, actor=request.user, **form.cleaned_data)
        except (AnnotateError, TrainingError) as error:
            form.add_error(None, f"{capfirst(str(error))}.")
        else:
            messages.success(request, f"{judge} is there. Let it judge what people have judged.")
            return redirect("judge_version", slug=slug, pk=judge.pk)
    jobs = judgings_in(project=project)
    rows = [
        (judge, model_words(judge), cost_of(jobs.get(judge.pk, [])), jobs.get(judge.pk, [])[:1])
        for judge in judges_of(project=project)
    ]
    context = {
        "project": project,
        "tab": "judges",
        "rows": rows,
        "form": form,
    }
    return render(request, "training/judges.html", context, status=422 if form.errors else 200)


def judge_of(request: MemberRequest, project: Project, pk: int) -> JudgeVersion:
    """A version of the workspace, with the counts of what it did in this project."""
    return get_object_or_404(judges_of(project=project), pk=pk)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.RESEARCHER)
def judge_version(request: MemberRequest, slug: str, pk: int) -> HttpResponse:
    """One judge in one project: against people, what it cost, and the form that lets it judge."""
    project = project_of(request, slug)
    judge = judge_of(request, project, pk)
    form = JudgingForm(request.POST or None, judge=judge)
    if request.method == "POST" and form.is_valid():
        try:
            job = queue_judging(judge=judge, project=project, **form.asked())
        except (AnnotateError, TrainingError) as error:
            form.add_error(None, f"{capfirst(str(error))}.")
        else:
            messages.success(request, f"Job {job.pk} is queued; a worker takes it.")
            return redirect("judge_version", slug=slug, pk=pk)
    return page(request, project, judge, form, AcceptForm())


def page(
    request: MemberRequest,
    project: Project,
    judge: JudgeVersion,
    form: JudgingForm,
    accept_form: AcceptForm,
) -> HttpResponse:
    jobs = judgings_in(project=project).get(judge.pk, [])
    context = {
        "project": project,
        "tab": "judges",
        "judge": judge,
        "model": model_words(judge),
        "standing": judge_standing(judge=judge, project=project),
        "jobs": jobs,
        "cost": cost_of(jobs),
        "form": form,
        "accept_form": accept_form,
    }
    wrong = form.errors or accept_form.errors
    return render(request, "training/judge_version.html", context, status=422 if wrong else 200)


@require_POST
@requires(Role.ADMIN)
def accept(request: MemberRequest, slug: str, pk: int) -> HttpResponse:
    """An admin lets snapshots of the project use what this version said."""
    project = project_of(request, slug)
    judge = judge_of(request, project, pk)
    form = AcceptForm(request.POST)
    if form.is_valid():
        try:
            made = accept_calibration(
                judge=judge,
                project=project,
                actor=request.user,
                reason=form.cleaned_data["reason"],
            )
        except AnnotateError as error:
            form.add_error(None, f"{capfirst(str(error))}.")
        else:
            messages.success(request, f"{judge} is accepted on {made.n} comparisons.")
            return redirect("judge_version", slug=slug, pk=pk)
    return page(request, project, judge, JudgingForm(judge=judge), form)
