"""Text sets: the list, bringing one in, and what one holds."""

from __future__ import annotations

from urllib.parse import urlencode

from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_http_methods, require_safe

from annotate.errors import AnnotateError
from annotate.uploads import received
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role
from training.models import TextSet
from training.selectors.text_sets import gold_of, label_counts, runs_reading, shares, texts_of
from training.services.text_sets import import_text_set
from training.text_forms import ImportTextSetForm

PER_PAGE, TEXTS_PER_PAGE = 50, 20
#: Runs that a set's page names, and labels that it shows without being asked.
RUNS, LABELS = 20, 12


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.RESEARCHER)
def text_sets(request: MemberRequest) -> HttpResponse:
    workspace = request.membership.workspace
    form = ImportTextSetForm(request.POST or None, request.FILES or None)
    stored = refused = None
    if request.method == "POST" and form.is_valid():
        asked = dict(form.cleaned_data)
        percent = asked.pop("held_out_percent")
        try:
            with received(asked.pop("file")) as path:
                stored = import_text_set(
                    workspace=workspace,
                    path=path,
                    test_fraction=None if percent is None else percent / 100,
                    **asked,
                )
        except AnnotateError as error:
            refused = error
    found = TextSet.objects.filter(workspace=workspace).order_by("name", "-version")
    context = {
        "page": Paginator(found, PER_PAGE).get_page(request.GET.get("page")),
        "form": form,
        "stored": stored,
        "refused": refused,
    }
    status = 422 if form.errors or refused else 200
    return render(request, "training/text_sets.html", context, status=status)


@require_safe
@requires(Role.RESEARCHER)
def text_set(request: MemberRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(TextSet, pk=pk, workspace=request.membership.workspace)
    labels = label_counts(found)
    show, label = (request.GET.get(name, "").replace("\0", "") for name in ("show", "label"))
    label = label if label in {each.name for each in labels} else ""
    page = Paginator(texts_of(found, show=show, label=label), TEXTS_PER_PAGE).get_page(
        request.GET.get("page")
    )
    kept = {name: value for name, value in (("show", show), ("label", label)) if value}
    context = {
        "set": found,
        "page": page,
        "texts": [(document, gold_of(document)) for document in page],
        "show": show,
        "label": label,
        "query": f"{urlencode(kept)}&" if kept else "",
        "labels": labels[:LABELS],
        "more_labels": labels[LABELS:],
        "largest": max((each.n for each in labels), default=0),
        "writing": shares(found.figures.get("writing", {})),
        "languages": shares(found.figures.get("languages", {})),
        "runs": runs_reading(found)[:RUNS],
        "versions": TextSet.objects.filter(workspace=found.workspace_id, name=found.name)
        .exclude(pk=found.pk)
        .order_by("-version"),
    }
    return render(request, "training/text_set.html", context)
