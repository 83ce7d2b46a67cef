"""Prompt sets: the list, the prompts of one, and bringing one in."""

from __future__ import annotations

from urllib.parse import urlencode

from django.core.paginator import Paginator
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_http_methods, require_safe

from annotate.errors import AnnotateError
from annotate.formats.topics import MAX_TOPIC
from annotate.forms import ImportPromptsForm
from annotate.models import PromptSet
from annotate.selectors.topics import topics_of_set
from annotate.services.ingest import import_prompts
from annotate.uploads import received
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role

PER_PAGE = 50


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.RESEARCHER)
def prompt_sets(request: MemberRequest) -> HttpResponse:
    workspace = request.membership.workspace
    form = ImportPromptsForm(request.POST or None, request.FILES or None)
    stored = refused = None
    if request.method == "POST" and form.is_valid():
        asked = dict(form.cleaned_data)
        try:
            with received(asked.pop("file")) as path:
                stored = import_prompts(workspace=workspace, path=path, **asked)
        except AnnotateError as error:
            refused = error
    found = PromptSet.objects.filter(workspace=workspace).annotate(size=Count("entries"))
    context = {
        "page": Paginator(found.order_by("name", "-version"), PER_PAGE).get_page(
            request.GET.get("page")
        ),
        "form": form,
        "stored": stored,
        "refused": refused,
    }
    status = 422 if form.errors or refused else 200
    return render(request, "annotate/prompt_sets.html", context, status=status)


@require_safe
@requires(Role.RESEARCHER)
def prompt_set(request: MemberRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(PromptSet, pk=pk, workspace=request.membership.workspace)
    entries = found.entries.select_related("prompt").prefetch_related("prompt__topics")
    topic = request.GET.get("topic", "")[:MAX_TOPIC]
    if topic:
        entries = entries.filter(prompt__topics__name=topic)
    context = {
        "set": found,
        "page": Paginator(entries, PER_PAGE).get_page(request.GET.get("page")),
        "topic": topic,
        "topics": topics_of_set(prompt_set=found),
        "query": f"{urlencode({'topic': topic})}&" if topic else "",
    }
    return render(request, "annotate/prompt_set.html", context)
