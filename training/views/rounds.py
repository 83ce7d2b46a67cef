"""Rounds: launching one, watching it, and giving the verdict."""

from __future__ import annotations

from typing import cast

from django import forms
from django.contrib import messages
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotate.errors import AnnotateError
from annotate.models import Comparison, PromptSet, Snapshot
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role, Workspace
from training.errors import TrainingError
from training.models import Job, ModelVersion, Round, Run
from training.selectors.runs import answers_side_by_side, run_curves, run_progress
from training.services import promoting
from training.services.launching import launch_round
from training.services.rounds import cancel_round, plan, retry_round
from training.services.versions import base_version

#: Methods whose metrics are curves; the others report once.
TRAINED = (Run.Method.SFT, Run.Method.REWARD, Run.Method.DPO, Run.Method.PPO)


class LaunchForm(forms.Form):
    """What a round needs; everything else has defaults (training.services.presets)."""

    snapshot = forms.ModelChoiceField(Snapshot.objects.none(), empty_label=None)
    method = forms.ChoiceField(choices=Round.Method.choices, initial=Round.Method.DPO)
    fresh_prompts = forms.ModelChoiceField(
        PromptSet.objects.none(), empty_label=None, label="Prompts the new policy answers"
    )
    reference = forms.ModelChoiceField(
        ModelVersion.objects.none(), empty_label=None, label="Start from (and compare with)"
    )
    reward_version = forms.ModelChoiceField(
        ModelVersion.objects.none(),
        required=False,
        empty_label="train one on this snapshot",
        label="Reward model",
    )

    def __init__(self, *args: object, workspace: Workspace, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        versions = ModelVersion.objects.filter(workspace=workspace).order_by("-pk")
        choices = {
            "snapshot": Snapshot.objects.filter(workspace=workspace).order_by("-pk"),
            "fresh_prompts": PromptSet.objects.filter(workspace=workspace).order_by("-pk"),
            "reference": versions.exclude(kind=ModelVersion.Kind.REWARD),
            "reward_version": versions.filter(kind=ModelVersion.Kind.REWARD),
        }
        for name, queryset in choices.items():
            cast(forms.ModelChoiceField, self.fields[name]).queryset = queryset


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.RESEARCHER)
def rounds(request: MemberRequest) -> HttpResponse:
    """All rounds, and the form that launches one."""
    workspace = request.membership.workspace
    base_version(workspace=workspace)
    form = LaunchForm(request.POST or None, workspace=workspace)
    if request.method == "POST" and form.is_valid():
        asked = form.cleaned_data
        try:
            launched = launch_round(project=asked["snapshot"].project, actor=request.user, **asked)
        except (TrainingError, AnnotateError) as error:
            form.add_error(None, str(error))
        else:
            return redirect("round", pk=launched.pk)
    found = Round.objects.filter(workspace=workspace).select_related("project", "snapshot")
    context = {"form": form, "rounds": found.order_by("-pk")}
    return render(request, "training/rounds.html", context, status=422 if form.errors else 200)


def round_of(request: MemberRequest, pk: int) -> Round:
    return get_object_or_404(
        Round.objects.select_related("project", "snapshot", "reference", "policy_version"),
        pk=pk,
        workspace=request.membership.workspace,
    )


@require_safe
@requires(Role.RESEARCHER)
def round(request: MemberRequest, pk: int) -> HttpResponse:
    found = round_of(request, pk)
    runs = list(found.runs.select_related("job").order_by("pk"))
    newest = {run.stage: run for run in runs}
    stages = [(name.replace("_", " "), newest.get(name)) for name in plan(found)]
    opened = Comparison.objects.filter(project=found.project, origin_reference=f"round:{found.pk}")
    context = {
        "round": found,
        "stages": stages,
        "progress": progress_of(found),
        "charts": [
            (run, curves) for run in runs if run.method in TRAINED and (curves := run_curves(run))
        ],
        "results": [run for run in runs if run.result and run.result.get("metrics")],
        "failed": [run for run in runs if run.job.state == Job.State.FAILED],
        "answers": answers_side_by_side(found),
        "opened": opened.count(),
        "still_open": opened.filter(slots__gt=0).count(),
        "over": found.state in Round.FINAL or found.state == Round.State.AWAITING_VERDICT,
        "awaiting": found.state == Round.State.AWAITING_VERDICT,
        "can_retry": found.state in (Round.State.FAILED, Round.State.CANCELLED),
    }
    return render(request, "training/round.html", context)


def progress_of(found: Round) -> dict[str, object]:
    """What the page polls: the state and how far the newest run is."""
    run = found.runs.order_by("-pk").first()
    step, total = run_progress(run) if run is not None else (0, 0)
    return {
        "state": found.state,
        "label": found.get_state_display(),
        "stage": run.stage.replace("_", " ") if run is not None else "",
        "step": step,
        "total": total,
    }


@require_safe
@requires(Role.RESEARCHER)
def round_progress(request: MemberRequest, pk: int) -> JsonResponse:
    return JsonResponse(progress_of(round_of(request, pk)))


@require_POST
@requires(Role.RESEARCHER)
def decide(request: MemberRequest, pk: int, verb: str) -> HttpResponse:
    """Promote, reject, cancel or retry."""
    found = round_of(request, pk)
    try:
        if verb == "promote":
            promoting.promote_round(round=found)
        elif verb == "reject":
            promoting.reject_round(round=found)
        elif verb == "cancel":
            cancel_round(round=found)
        else:
            retry_round(round=found)
    except TrainingError as error:
        messages.error(request, str(error))
    return redirect("round", pk=pk)
