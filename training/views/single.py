"""One method outside a round, and the advisor that says which."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role
from training.engine.advisor import Advice, advise
from training.engine.advisor_case import case_from_dict
from training.engine.advisor_presets import Stage
from training.engine.errors import EngineError
from training.errors import CannotLaunch
from training.selectors.plans import version_shape
from training.services.launching_runs import launch_run
from training.services.methods import LAUNCHABLE
from training.services.versions import base_version
from training.single_forms import CaseForm, SingleRunForm, settings_of, tuning_of


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.RESEARCHER)
def new_run(request: MemberRequest) -> HttpResponse:
    """Launch one method; the query string may fill the form in."""
    workspace = request.membership.workspace
    base_version(workspace=workspace)
    asked = {name: request.GET[name] for name in SingleRunForm.base_fields if name in request.GET}
    form = SingleRunForm(
        request.POST or None,
        workspace=workspace,
        initial={**asked, "launch_key": uuid.uuid4().hex},
    )
    if request.method == "POST" and form.is_valid():
        said = dict(form.cleaned_data)
        if not LAUNCHABLE[said["method"]].tunings:
            said["tuning"] = "lora"
        try:
            run = launch_run(
                workspace=workspace,
                config=said.pop("settings"),
                actor=request.user,
                **said,
            )
        except (CannotLaunch, EngineError) as error:
            form.add_error(None, f"{error}.")
        else:
            messages.success(request, "Launched.")
            return redirect("run", pk=run.pk)
    context = {"form": form, "methods": LAUNCHABLE.values()}
    return render(request, "training/run_new.html", context, status=422 if form.errors else 200)


@dataclass(frozen=True)
class Step:
    """One run of the advice, with where it is planned and launched."""

    stage: Stage
    tuning: str
    settings: str
    launch: str


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.RESEARCHER)
def advice(request: MemberRequest) -> HttpResponse:
    """Describe a case and see which way to go. Nothing is stored."""
    workspace = request.membership.workspace
    base_version(workspace=workspace)
    form = CaseForm(request.POST or None, workspace=workspace)
    found: Advice | None = None
    if request.method == "POST" and form.is_valid():
        version = form.cleaned_data["version"]
        try:
            shape = version_shape(version) if version is not None else None
            found = advise(case_from_dict(form.case(), shape=shape))
        except EngineError as error:
            form.add_error(None, f"{error}.")
    context = {
        "form": form,
        "advice": found,
        "steps": steps_of(found, form.cleaned_data["version"]) if found and found.first else [],
    }
    return render(request, "training/advice.html", context, status=422 if form.errors else 200)


def steps_of(found: Advice, version: Any) -> list[Step]:
    """The runs of the first option, in order."""
    assert found.first is not None  # noqa: S101 - asked by the caller
    return [
        Step(stage, tuning_of(stage.config), settings_of(stage.config), launch_at(stage, version))
        for stage in found.first.stages
    ]


def launch_at(stage: Stage, version: Any) -> str:
    """Where a run is launched: on its own, or, for preferences, in a round."""
    if stage.method not in LAUNCHABLE:
        return reverse("rounds")
    query = {
        "method": stage.method,
        "tuning": tuning_of(stage.config),
        "settings": settings_of(stage.config),
    }
    if version is not None:
        query["version"] = version.pk
    return f"{reverse('run_new')}?{urlencode(query)}"
