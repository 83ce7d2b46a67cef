"""Snapshots: freezing one, reading one, taking its rows away."""

from __future__ import annotations

from collections.abc import Iterator

from django.contrib import messages
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from annotate.errors import AnnotateError
from annotate.export.writers import snapshot_lines
from annotate.forms import FreezeForm
from annotate.models import Snapshot
from annotate.selectors.quality import frozen_agreement
from annotate.selectors.snapshots import rule_in_words, sample_rows, snapshot_lengths
from annotate.services.freezing import freeze_snapshot
from annotate.views.projects import project_of
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role


def snapshot_of(request: MemberRequest, slug: str, number: int) -> Snapshot:
    return get_object_or_404(
        Snapshot.objects.select_related("project", "aggregation", "created_by"),
        project__workspace=request.membership.workspace,
        project__slug=slug,
        number=number,
    )


@require_POST
@requires(Role.RESEARCHER)
def freeze(request: MemberRequest, slug: str) -> HttpResponse:
    project = project_of(request, slug)
    form = FreezeForm(request.POST, project=project)
    if not form.is_valid():
        wrong = "This workspace has no such judge." if "judge" in form.errors else ""
        messages.error(request, wrong or "Held out takes a whole number of percent from 1 to 90.")
        return redirect("project", slug=slug)
    try:
        snapshot = freeze_snapshot(
            project=project,
            test_fraction=form.cleaned_data["test_percent"] / 100,
            leave_out_known=form.cleaned_data["leave_out_known"],
            judge=form.cleaned_data["judge"],
            actor=request.user,
        )
    except AnnotateError as error:
        messages.error(request, f"Nothing was frozen: {error}.")
        return redirect("project", slug=slug)
    held_out = 100 * snapshot.n_test / (snapshot.n_train + snapshot.n_test)
    by_machine = snapshot.summary.get("by_machine")
    machine = "" if by_machine is None else f" {by_machine} rows were judged by a machine."
    messages.success(
        request,
        f"Snapshot {snapshot.number} is frozen: {snapshot.n_test} rows are held out, "
        f"{held_out:.0f} % where {form.cleaned_data['test_percent']} % was asked for (prompts stay "
        f"whole).{machine}",
    )
    return redirect("snapshot", slug=slug, number=snapshot.number)


@require_safe
@requires(Role.RESEARCHER)
def snapshot(request: MemberRequest, slug: str, number: int) -> HttpResponse:
    found = snapshot_of(request, slug, number)
    left_out = found.summary.get("left_out", {})
    context = {
        "project": found.project,
        "tab": "project",
        "snapshot": found,
        "rows": found.n_train + found.n_test,
        "left_out": left_out,
        "left_out_total": sum(left_out.values()),
        "rule": rule_in_words(found),
        "machine": found.rule["belief"].get("machine"),
        "agreement": frozen_agreement(aggregation=found.aggregation),
        "lengths": snapshot_lengths(snapshot=found),
        "samples": sample_rows(snapshot=found),
        "rounds": found.rounds.select_related("policy_version").order_by("-number"),
    }
    return render(request, "annotate/snapshot.html", context)


@require_safe
@requires(Role.RESEARCHER)
def download(request: MemberRequest, slug: str, number: int, split: str) -> StreamingHttpResponse:
    """A split's rows as JSON lines, as they were hashed, streamed."""
    found = snapshot_of(request, slug, number)

    def lines() -> Iterator[bytes]:
        for line in snapshot_lines(snapshot=found, split=split):
            yield f"{line}\n".encode()

    name = f"{slug}-snapshot-{number}-{split}.jsonl"
    return StreamingHttpResponse(
        lines(),
        content_type="application/jsonl",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
