"""Plans of memory and time: a page of their own, and the panel in a launch form."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods, require_POST

from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role, Workspace
from training.engine.errors import EngineError
from training.engine.planner import Lengths
from training.engine.planner_shapes import packaged_shape
from training.forms import LaunchForm, parsed
from training.models import Round, Run
from training.plan_forms import PlanForm
from training.selectors.advice import settings_of, tuning_of
from training.selectors.calibrations import memory_factor
from training.selectors.plans import (
    DEFAULT_PRESET,
    GB,
    Planned,
    overlaid,
    planned,
    preset_device,
    round_plans,
    run_config,
    said_shape,
    version_shape,
)
from training.services.methods import LAUNCHABLE
from training.services.versions import base_version, hub_id_of


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.RESEARCHER)
def plan(request: MemberRequest) -> HttpResponse:
    """Describe a run and see what it needs. Nothing is stored."""
    base_version(workspace=request.membership.workspace)
    form = PlanForm(request.POST or None, workspace=request.membership.workspace)
    plans: list[Planned] = []
    launch = ""
    if request.method == "POST" and form.is_valid():
        try:
            plans = [answered(form.cleaned_data, request.membership.workspace)]
            launch = launch_query(form.cleaned_data)
        except EngineError as error:
            form.add_error(None, f"{error}.")
    context = {"form": form, "plans": plans, "open": True, "launch": launch}
    return render(request, "training/plan.html", context, status=422 if form.errors else 200)


def launch_query(asked: dict[str, Any]) -> str:
    """What fills in the launch form with what was planned; empty for what runs in a round."""
    if asked["method"] not in LAUNCHABLE:
        return ""
    config = overlaid({"method": asked["method"], "base": {}}, asked["settings"])
    query = {
        "method": asked["method"],
        "tuning": tuning_of(config),
        "settings": settings_of(config),
    }
    if asked["base"] or asked["base_config"]:
        return urlencode(query | {"base": asked["base"] or hub_id_of(asked["base_config"])})
    return urlencode(query | {"version": asked["version"].pk})


def answered(asked: dict[str, Any], workspace: Workspace) -> Planned:
    """Raises EngineError naming what cannot be planned."""
    if asked["base_config"]:
        shape, base = said_shape(asked["base_config"]), None
    elif asked["base"]:
        shape, base = packaged_shape(asked["base"]), {"source": asked["base"]}
    else:
        shape, base = version_shape(asked["version"]), asked["version"].base
    config = run_config(asked["method"], asked["settings"], base=base, shape=shape)
    device, device_bytes = preset_device(asked["device"])
    if asked["device_gb"] is not None:
        device_bytes = int(asked["device_gb"] * GB)
    lengths = Lengths(longest=asked["longest"], rows=asked["rows"])
    title = dict(Run.Method.choices).get(asked["method"], asked["method"])
    return planned(
        title,
        config,
        shape,
        device=device,
        device_bytes=device_bytes,
        lengths=lengths,
        factor=memory_factor(workspace=workspace, method=config.method, device=device),
    )


@require_POST
@requires(Role.RESEARCHER)
def round_plan_panel(request: MemberRequest) -> HttpResponse:
    """The plan of every stage of what a launch form holds now, for its module to show."""
    workspace = request.membership.workspace
    form = LaunchForm(request.POST, workspace=workspace)
    device, device_bytes = preset_device(request.POST.get("plan_device", DEFAULT_PRESET))
    try:
        base_config = parsed(request.POST.get("plan_base_config", ""))
    except ValidationError as error:
        said = f"the base's config.json: {' '.join(error.messages)}".rstrip(".")
        return render(
            request, "training/plan_panel.html", {"plans": [Planned("round", refused=said)]}
        )
    if form.is_valid():
        asked = form.cleaned_data
        config = asked["config"] | ({"reward_given": True} if asked["reward_version"] else {})
        draft = Round(
            workspace=workspace,
            project=asked["snapshot"].project,
            snapshot=asked["snapshot"],
            method=asked["method"],
            reference=asked["reference"],
            reward_version=asked["reward_version"],
            config=config,
        )
        plans = round_plans(
            draft, device=device, device_bytes=device_bytes, base_config=base_config
        )
    else:
        said = " ".join(str(error) for errors in form.errors.values() for error in errors)
        plans = [Planned("round", refused=said.rstrip("."))]
    return render(request, "training/plan_panel.html", {"plans": plans})
