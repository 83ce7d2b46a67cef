"""On what terms people judge: the project's page of them, and consent before anything is shown."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.text import capfirst
from django.views.decorators.http import require_http_methods, require_POST

from annotate.errors import AnnotateError
from annotate.models import Report
from annotate.services.participation import (
    accept_consent,
    report_to_admins,
    settle_report,
    update_terms,
)
from annotate.services.serving import annotator_for
from annotate.terms_forms import TermsForm, terms_of
from annotate.views.projects import project_of
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.ADMIN)
def terms(request: MemberRequest, slug: str) -> HttpResponse:
    """Who judges here, how much, and what they are told first."""
    found = project_of(request, slug)
    form = TermsForm(request.POST or None, project=found, initial=terms_of(found))
    if request.method == "POST" and form.is_valid():
        try:
            update_terms(project=found, **form.cleaned_data)
        except AnnotateError as error:
            form.add_error(None, f"{capfirst(str(error))}.")
        else:
            messages.success(request, "Saved.")
            return redirect("project_terms", slug=slug)
    reports = Report.objects.filter(project=found, settled_at=None).order_by("-pk")[:50]
    context = {"project": found, "tab": "terms", "form": form, "reports": reports}
    return render(
        request, "annotate/project_terms.html", context, status=422 if form.errors else 200
    )


@require_POST
@requires(Role.ADMIN)
def settle(request: MemberRequest, slug: str, pk: int) -> HttpResponse:
    found = get_object_or_404(Report, pk=pk, project=project_of(request, slug))
    settle_report(report=found, user=request.user)
    return redirect("project_terms", slug=slug)


@require_POST
@requires(Role.ANNOTATOR)
def consent(request: MemberRequest, slug: str) -> HttpResponse:
    """A person accepts what the project asks before it shows anything."""
    project = project_of(request, slug)
    annotator = annotator_for(user=request.user, workspace=request.membership.workspace)
    version = request.POST.get("version", "")
    try:
        accept_consent(
            project=project,
            annotator=annotator,
            version=int(version) if version.isdecimal() and len(version) < 10 else 0,
        )
    except AnnotateError as error:
        messages.error(request, f"{capfirst(str(error))}.")
    return redirect("judge", slug=slug)


@require_POST
@requires(Role.ANNOTATOR)
def report(request: MemberRequest, slug: str) -> HttpResponse:
    """Tell the admins about a project, in one's own words."""
    project = project_of(request, slug)
    annotator = annotator_for(user=request.user, workspace=request.membership.workspace)
    try:
        report_to_admins(project=project, annotator=annotator, text=request.POST.get("text", ""))
    except AnnotateError as error:
        messages.error(request, f"{capfirst(str(error))}.")
    else:
        messages.success(request, "Sent. The admins of the workspace read it.")
    return redirect("my_work")
