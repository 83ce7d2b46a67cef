"""Rounds: launching one, watching it, and giving the verdict."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Q
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.text import capfirst
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotate.errors import AnnotateError
from annotate.models import PromptSet, Snapshot
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role
from training.errors import LaunchKeyReused, TrainingError
from training.forms import LaunchForm
from training.models import Round
from training.selectors.costs import launch_hints
from training.selectors.evaluations import failed_gate, people_prefer
from training.selectors.events import event_row, run_pace
from training.selectors.plans import DEFAULT_PRESET, PRESETS
from training.selectors.round_events import last_cursor, read_cursor, round_events_after
from training.selectors.rounds import comparisons_opened
from training.selectors.runs import answers_side_by_side
from training.selectors.watching import round_signature, watch_round
from training.services import promoting
from training.services.launching import launch_round
from training.services.rounds import cancel_round, retry_round
from training.services.versions import base_version

#: Rounds a page of the list shows.
PER_PAGE = 30


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
        except LaunchKeyReused:
            form.renew_key()
            form.add_error(
                None,
                "This form has launched a round already, with other settings. "
                "Press Launch again if you want this one too.",
            )
        except (TrainingError, AnnotateError) as error:
            form.add_error(None, str(error))
        else:
            return redirect("round", pk=launched.pk)
    found = Round.objects.filter(workspace=workspace).select_related(
        "project", "snapshot", "reference", "policy_version"
    )
    snapshot = Snapshot.objects.filter(workspace=workspace).order_by("-pk").first()
    context = {
        "form": form,
        "page": Paginator(found.order_by("-pk"), PER_PAGE).get_page(request.GET.get("page")),
        "snapshot": snapshot,
        "has_prompts": PromptSet.objects.filter(workspace=workspace).exists(),
        "devices": [(name, said[0]) for name, said in PRESETS.items()],
        "device": request.POST.get("plan_device", DEFAULT_PRESET),
        "hints": launch_hints(workspace=workspace, snapshot=snapshot),
    }
    return render(request, "training/rounds.html", context, status=422 if form.errors else 200)


def round_of(request: MemberRequest, pk: int) -> Round:
    return get_object_or_404(
        Round.objects.select_related(
            "project", "snapshot", "reference", "policy_version", "reward_version",
            "fresh_prompts", "created_by",
        ),
        pk=pk,
        workspace=request.membership.workspace,
    )  # fmt: skip


def live_context(found: Round) -> dict[str, Any]:
    """What the live part of the page shows; the page and the polled fragment share it."""
    return {
        "round": found,
        "watch": watch_round(found),
        "over": found.over,
    }


@require_safe
@requires(Role.RESEARCHER)
def round(request: MemberRequest, pk: int) -> HttpResponse:
    found = round_of(request, pk)
    opened = comparisons_opened(found).aggregate(
        n=Count("pk"), open=Count("pk", filter=Q(slots__gt=0))
    )
    context = {
        **live_context(found),
        "signature": round_signature(found),
        "cursor": last_cursor(found) or "",
        "answers": answers_side_by_side(found),
        "people_prefer": people_prefer(found),
        "failed_gate": failed_gate(found),
        "opened": opened["n"],
        "still_open": opened["open"],
        "awaiting": found.state == Round.State.AWAITING_VERDICT,
        "can_retry": found.state in (Round.State.FAILED, Round.State.CANCELLED),
    }
    return render(request, "training/round.html", context)


@require_safe
@requires(Role.RESEARCHER)
def round_live(request: MemberRequest, pk: int) -> HttpResponse:
    """The live part of the page alone, for its module to swap in."""
    return render(request, "training/round_live.html", live_context(round_of(request, pk)))


@require_safe
@requires(Role.RESEARCHER)
def round_events(request: MemberRequest, pk: int) -> JsonResponse:
    """The newest run's events after a cursor (`?after=RUN.ATTEMPT.SEQ`), and how far it is."""
    found = round_of(request, pk)
    page = round_events_after(found, read_cursor(request.GET.get("after", "")))
    pace = run_pace(page.run) if page.run is not None else None
    return JsonResponse(
        {
            "state": found.state,
            "label": found.get_state_display(),
            "signature": round_signature(found),
            "run": page.run.pk if page.run else None,
            "stage": page.run.stage if page.run else "",
            "step": pace.step if pace else 0,
            "total_steps": pace.total if pace else 0,
            "seconds_left": pace.left_s if pace else None,
            "events": [event_row(event) for event in page.events],
            "cursor": str(page.cursor) if page.cursor else "",
            "more": page.more,
        }
    )


@require_POST
@requires(Role.RESEARCHER)
def decide(request: MemberRequest, pk: int, verb: str) -> HttpResponse:
    """Promote, reject, cancel or retry."""
    found = round_of(request, pk)
    try:
        if verb == "promote":
            version = promoting.promote_round(
                round=found, override=request.POST.get("override", "")
            )
            messages.success(request, f"{version} is promoted: sampling starts from it now.")
        elif verb == "reject":
            version = promoting.reject_round(round=found)
            messages.success(request, f"{version} is rejected. It stays in the registry.")
        elif verb == "cancel":
            cancel_round(round=found)
            messages.info(request, "Cancelling: a running stage stops within seconds.")
        else:
            retry_round(round=found)
            messages.info(request, "The stage is in the queue again.")
    except TrainingError as error:
        messages.error(request, f"{capfirst(str(error))}.")
    return redirect("round", pk=pk)
