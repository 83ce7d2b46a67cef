"""Comparisons: a list to browse, and one of them with everything that was said about it."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from annotate.models import Comparison
from annotate.selectors.comparisons import (
    FILTERS,
    browse_comparisons,
    comparison_story,
    with_outcomes,
)
from annotate.views.projects import project_of
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role

PER_PAGE = 25


@require_safe
@requires(Role.RESEARCHER)
def comparisons(request: MemberRequest, slug: str) -> HttpResponse:
    project = project_of(request, slug)
    show = request.GET.get("show", "all")
    show = show if show in FILTERS else "all"
    found = browse_comparisons(project=project, show=show)
    page = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "project": project,
        "tab": "comparisons",
        "page": page,
        "rows": with_outcomes(list(page.object_list)),
        "show": show,
        "filters": FILTERS.items(),
    }
    return render(request, "annotate/comparisons.html", context)


@require_safe
@requires(Role.RESEARCHER)
def comparison(request: MemberRequest, slug: str, pk: int) -> HttpResponse:
    project = project_of(request, slug)
    found = get_object_or_404(
        Comparison.objects.select_related("prompt", "response_a", "response_b").prefetch_related(
            "response_a__origins", "response_b__origins"
        ),
        pk=pk,
        project=project,
    )
    context = {"project": project, "tab": "comparisons", "story": comparison_story(found)}
    return render(request, "annotate/comparison.html", context)
