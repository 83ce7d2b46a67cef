"""One method outside a round, and the advisor that says which."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role, Workspace
from training.engine.advisor import Advice
from training.engine.errors import EngineError
from training.errors import CannotLaunch, UnknownBase
from training.models import Job, ModelVersion, Run
from training.selectors.advice import Step, advise_on, made_by, steps_of
from training.services.launching_runs import launch_run
from training.services.measuring import measured_distance, queue_measurement
from training.services.methods import LAUNCHABLE
from training.services.queueing import FINAL
from training.services.versions import base_version, named_base, registered_base
from training.single_forms import TEXTS, CaseForm, SingleRunForm

#: Of the planner's devices the ones for a case that says only which kind it has.
DEVICES = {"gpu": "gpu-24", "cpu": "cpu-8"}


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.RESEARCHER)
def new_run(request: MemberRequest) -> HttpResponse:
    """Launch one method; the query string may fill the form in."""
    workspace = request.membership.workspace
    base_version(workspace=workspace)
    form = SingleRunForm(
        request.POST or None,
        workspace=workspace,
        initial={**asked_of(request), "launch_key": uuid.uuid4().hex},
    )
    if request.method == "POST" and form.is_valid():
        said = dict(form.cleaned_data)
        if not LAUNCHABLE[said["method"]].tunings:
            said["tuning"] = "lora"
        try:
            base = said.pop("base")
            if base:
                said["version"] = named_base(workspace=workspace, source=base)
            run = launch_run(
                workspace=workspace,
                config=said.pop("settings"),
                actor=request.user,
                **said,
            )
        except (CannotLaunch, UnknownBase, EngineError) as error:
            form.add_error(None, f"{error}.")
        else:
            messages.success(request, "Launched.")
            return redirect("run", pk=run.pk)
    context = {
        "form": form,
        "methods": LAUNCHABLE.values(),
        "waits_for": dict(Run.Method.choices).get(waits_for(request, form), ""),
    }
    return render(request, "training/run_new.html", context, status=422 if form.errors else 200)


def asked_of(request: MemberRequest) -> dict[str, Any]:
    """What the query string says of a launch.

    `after` names the method of the step before it: the launch starts from what that made of the
    version or base that is named, and from nothing as long as there is no such thing.
    """
    asked: dict[str, Any] = {
        n: request.GET[n] for n in SingleRunForm.base_fields if n in request.GET
    }
    if "base" in asked:
        asked.setdefault("version", None)
    if "after" in request.GET:
        start = start_of(request)
        made = made_by(method=request.GET["after"], start=start) if start else None
        asked |= {"base": "", "version": made.pk if made else None}
    return asked


def start_of(request: MemberRequest) -> ModelVersion | None:
    """The version that the query string names, by its number or as a base."""
    workspace = request.membership.workspace
    number = request.GET.get("version", "")
    if number.isdecimal():
        return ModelVersion.objects.filter(workspace=workspace, pk=int(number[:18])).first()
    return registered_base(workspace=workspace, source=request.GET.get("base", ""))


def waits_for(request: MemberRequest, form: SingleRunForm) -> str:
    """The method of a step before this launch that has not ended; empty: none is waited for."""
    missing = "after" in request.GET and form.initial.get("version") is None
    return request.GET["after"] if missing else ""


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.RESEARCHER)
def advice(request: MemberRequest) -> HttpResponse:
    """Describe a case and see which way to go; only texts to measure are stored, as a job.

    `measured` names that job: what it found counts as the case's domain distance from then on.
    """
    workspace = request.membership.workspace
    base_version(workspace=workspace)
    job = measurement(request)
    told = request.POST or (job.payload["case"] if job is not None else None)
    form = CaseForm(told or None, request.FILES or None, workspace=workspace)
    distance = measured_distance(job)
    found: Advice | None = None
    if told and form.is_valid():
        if any(form.cleaned_data[name] for name in TEXTS):
            return redirect(f"{reverse('advise')}?measured={queued(form, workspace).pk}")
        try:
            version = form.cleaned_data["version"]
            found = advise_on(form.case(), version=version, distance=distance)
        except EngineError as error:
            form.add_error(None, f"{error}.")
    context: dict[str, Any] = {
        "form": form,
        "advice": found,
        "steps": [],
        "job": job,
        "waiting": job is not None and job.state not in FINAL,
        "distance": distance,
    }
    if found is not None:
        said = form.cleaned_data
        steps = steps_of(found, workspace=workspace, version=said["version"])
        context["steps"] = [
            (step, launch_at(step), step.plan(said["base_config"]) | device_of(form))
            for step in steps
        ]
    return render(request, "training/advice.html", context, status=422 if form.errors else 200)


def measurement(request: MemberRequest) -> Job | None:
    """The measurement that the query string or the form names. Raises Http404 for another's."""
    named = request.POST.get("measured") or request.GET.get("measured")
    if not named:
        return None
    if not named.isdecimal() or len(named) > 18:
        raise Http404
    return get_object_or_404(
        Job, pk=named, kind=Job.Kind.MEASURE, workspace=request.membership.workspace
    )


def queued(form: CaseForm, workspace: Workspace) -> Job:
    said = form.cleaned_data
    return queue_measurement(
        workspace=workspace,
        source=form.source,
        text=said["text_file"] or said["text"],
        text_set=said["text_set"],
        case=form.said,
    )


def launch_at(step: Step) -> tuple[str, str]:
    """(address, words) of where a step is launched; no address where its base is not known."""
    if step.alone:
        if step.version is None and not step.base:
            return "", "register its base first: a Hub id, or a folder of the server"
        return f"{reverse('run_new')}?{urlencode(step.asked)}", "Launch it"
    if step.stage.method != "sample":
        return reverse("rounds"), "Launch a round"
    if step.version is not None and not step.after:
        return reverse("version", args=[step.version.pk]), "Let it answer"
    return reverse("versions"), "Let it answer"


def device_of(form: CaseForm) -> dict[str, Any]:
    """A case's device as the planner's form names it."""
    said = form.cleaned_data
    gigabytes = said["device_gb"]
    device = {"device": DEVICES[said["device"]]}
    return device | ({"device_gb": gigabytes} if gigabytes is not None else {})
