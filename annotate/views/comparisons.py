"""Comparisons: a list to browse, and one of them with everything that was said about it."""

from __future__ import annotations

from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.text import capfirst
from django.views.decorators.http import require_POST, require_safe

from annotate.errors import AnnotateError
from annotate.formats.topics import MAX_TOPIC
from annotate.models import Comparison, Project
from annotate.selectors.comparisons import (
    FILTERS,
    browse_comparisons,
    comparison_story,
    with_outcomes,
)
from annotate.selectors.topics import topics_of_project
from annotate.services.reserving import reserve_comparison
from annotate.services.serving import annotator_for
from annotate.services.topics import set_topics
from annotate.views.projects import project_of
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role, User

PER_PAGE = 25


@require_safe
@requires(Role.RESEARCHER)
def comparisons(request: MemberRequest, slug: str) -> HttpResponse:
    project = project_of(request, slug)
    show = request.GET.get("show", "all")
    show = show if show in FILTERS else "all"
    topic = request.GET.get("topic", "")[:MAX_TOPIC]
    found = browse_comparisons(project=project, show=show, topic=topic)
    page = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "project": project,
        "tab": "comparisons",
        "page": page,
        "rows": with_outcomes(list(page.object_list)),
        "show": show,
        "filters": FILTERS.items(),
        "topic": topic,
        "topics": topics_of_project(project=project),
        "query": f"{urlencode({'show': show, 'topic': topic})}&",
    }
    return render(request, "annotate/comparisons.html", context)


@require_safe
@requires(Role.RESEARCHER)
def comparison(request: MemberRequest, slug: str, pk: int) -> HttpResponse:
    project = project_of(request, slug)
    found = get_object_or_404(
        Comparison.objects.select_related(
            "prompt", "response_a", "response_b", "reserved_for__user"
        ).prefetch_related("response_a__origins", "response_b__origins", "prompt__topics"),
        pk=pk,
        project=project,
    )
    context = {
        "project": project,
        "tab": "comparisons",
        "story": comparison_story(found),
        "members": members_of(project),
    }
    return render(request, "annotate/comparison.html", context)


def members_of(project: Project) -> list[User]:
    members = User.objects.filter(memberships__workspace=project.workspace_id)
    return list(members.order_by("name", "email"))


@require_POST
@requires(Role.ADMIN)
def reserve(request: MemberRequest, slug: str, pk: int) -> HttpResponse:
    """Keep it for one person, or give it back to everybody."""
    project = project_of(request, slug)
    found = get_object_or_404(Comparison, pk=pk, project=project)
    person, asked = None, request.POST.get("person", "")
    if asked:
        member = next((each for each in members_of(project) if str(each.pk) == asked), None)
        if member is None:
            messages.error(request, "That is no member of this workspace.")
            return redirect("comparison", slug=slug, pk=pk)
        person = annotator_for(user=member, workspace=project.workspace)
    try:
        reserve_comparison(comparison=found, annotator=person)
    except AnnotateError as error:
        messages.error(request, f"{capfirst(str(error))}.")
    else:
        said = f"Reserved: only {person} is served it." if person else "Everybody is served it."
        messages.success(request, said)
    return redirect("comparison", slug=slug, pk=pk)


@require_POST
@requires(Role.RESEARCHER)
def topics(request: MemberRequest, slug: str, pk: int) -> HttpResponse:
    """What its prompt is about, with commas between."""
    found = get_object_or_404(Comparison, pk=pk, project=project_of(request, slug))
    try:
        set_topics(prompt=found.prompt, topics=request.POST.get("topics", "").split(","))
    except AnnotateError as error:
        messages.error(request, f"{capfirst(str(error))}.")
    else:
        messages.success(request, "Saved.")
    return redirect("comparison", slug=slug, pk=pk)
