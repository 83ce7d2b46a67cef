"""A person's own page: what they judged, what it took, what is measured about them and why."""

from __future__ import annotations

import csv
import uuid
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.text import capfirst
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotate.errors import AnnotateError
from annotate.hotkey_forms import HotkeysForm, as_initial
from annotate.models import Answer, Judgment, Project
from annotate.selectors.consistency import own_consistencies
from annotate.selectors.my_work import agreement_of, hours_of, judgments_of
from annotate.selectors.topics import topics_to_avoid
from annotate.services.hotkeys import hotkeys_of, keep_hotkeys
from annotate.services.judging import to_screen
from annotate.services.labels import offered_labels
from annotate.services.participation import set_avoided
from annotate.services.revising import revisable, revise_judgment
from annotate.services.serving import annotator_for
from annotate.terms_forms import ReviseForm
from annotate.views.judging import by_module
from annotate.views.questions import as_posted, posted_reply, questions_of
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role

PER_PAGE = 25
WORDS = {"left": "A is better", "right": "B is better", "tie": "Tie", "both_bad": "Both bad"}


@require_safe
@requires(Role.ANNOTATOR)
def my_work(request: MemberRequest) -> HttpResponse:
    """Judgments that stand, with search; hours; agreement where a project shows it."""
    workspace = request.membership.workspace
    annotator = annotator_for(user=request.user, workspace=workspace)
    search, slug = request.GET.get("q", "")[:200], request.GET.get("project", "")[:60]
    found = judgments_of(annotator=annotator, search=search, project=slug)
    page = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    projects = list(Project.objects.filter(workspace=workspace).order_by("name"))
    context = {
        "page": page,
        "rows": [
            (judgment, said_of(judgment), revisable(judgment, judgment.comparison.project))
            for judgment in page
        ],
        "search": search,
        "chosen": slug,
        "projects": projects,
        "query": f"q={search}&project={slug}&" if search or slug else "",
        "hours": hours_of(annotator=annotator)[:14],
        "agreements": agreement_of(annotator=annotator),
        "consistencies": own_consistencies(annotator=annotator),
        "topics": topics_to_avoid(workspace=workspace),
        "avoids": annotator.avoids,
        "keys": HotkeysForm(initial=as_initial(hotkeys_of(user=request.user))),
    }
    return render(request, "annotate/my_work.html", context)


def said_of(judgment: Judgment) -> str:
    said = to_screen(judgment)
    return WORDS.get(said, capfirst(said))


@require_safe
@requires(Role.ANNOTATOR)
def my_hours(request: MemberRequest) -> HttpResponse:
    """Days, projects, judgments and active minutes as CSV."""
    annotator = annotator_for(user=request.user, workspace=request.membership.workspace)
    reply = HttpResponse(content_type="text/csv; charset=utf-8")
    reply["Content-Disposition"] = 'attachment; filename="my-hours.csv"'
    table = csv.writer(reply)
    table.writerow(["day_utc", "project", "judgments", "active_minutes"])
    for each in hours_of(annotator=annotator):
        # A name that begins like a formula must stay text in a spreadsheet.
        name = f"'{each.project}" if each.project[:1] in "=+-@\t\r" else each.project
        table.writerow([each.day, name, each.judgments, f"{each.active_minutes:.1f}"])
    return reply


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.ANNOTATOR)
def revise(request: MemberRequest, pk: int) -> HttpResponse:
    """Another answer in place of one that stands, as it was shown then."""
    annotator = annotator_for(user=request.user, workspace=request.membership.workspace)
    related = ("comparison__project", "comparison__prompt", "assignment__guideline")
    own = Judgment.objects.standing().filter(annotator=annotator, assignment__isnull=False)
    # A ranking is said once, and its pairs are what it says.
    own = own.filter(comparison__group=None).exclude(answer=Answer.RANKING)
    judgment = get_object_or_404(own.select_related(*related), pk=pk)
    form = ReviseForm(request.POST or None)
    status = 200
    if request.method == "POST" and form.is_valid():
        try:
            revise_judgment(
                judgment=judgment,
                annotator=annotator,
                answer=form.cleaned_data["answer"],
                rationale=form.cleaned_data["rationale"],
                idempotency_key=form.cleaned_data["key"],
                **posted_reply(request.POST),
            )
        except AnnotateError as error:
            form.add_error(None, f"{capfirst(str(error))}.")
            status = 422
        else:
            messages.success(request, "Revised. Your first answer stays in the history.")
            return redirect("my_work")
    posted = request.POST if request.method == "POST" else as_posted(judgment)
    context: dict[str, Any] = {
        "judgment": judgment,
        "form": form,
        "key": uuid.uuid4().hex,
        "questions": questions_of(asked_of(judgment), posted),
        **shown(judgment),
    }
    if form.is_bound:
        context["said"] = request.POST.get("answer", "")
    return render(request, "annotate/revise.html", context, status=status)


def asked_of(judgment: Judgment) -> dict[str, Any]:
    """The form of the guidelines that were on the screen; no questions where there were none."""
    guideline = judgment.assignment.guideline if judgment.assignment is not None else None
    return dict(guideline.form) if guideline is not None else {}


def shown(judgment: Judgment) -> dict[str, object]:
    """What was on the screen, and what may be answered."""
    comparison, assignment = judgment.comparison, judgment.assignment
    project = comparison.project
    if project.kind == Project.Kind.LABELS and assignment is not None:
        choices = [(each["name"], each["name"]) for each in offered_labels(assignment)]
        return {"choices": choices, "said": judgment.label}
    offered = {"tie": project.allow_tie, "both_bad": project.allow_both_bad}
    choices = [each for each in WORDS.items() if offered.get(each[0], True)]
    a, b = (response.text for response in comparison.pair)
    left, right = (b, a) if judgment.swapped else (a, b)
    texts = {"left": left, "right": right}
    return {"choices": choices, "said": to_screen(judgment), "texts": texts, **texts}


@require_POST
@requires(Role.ANNOTATOR)
def hotkeys(request: MemberRequest) -> HttpResponse:
    """A person's keys, from the plain form or from the judging screen."""
    form = HotkeysForm(request.POST)
    problem = ""
    if form.is_valid():
        try:
            keep_hotkeys(user=request.user, **form.wishes())
        except AnnotateError as error:
            problem = f"{capfirst(str(error))}."
    else:
        problem = " ".join(str(each) for errors in form.errors.values() for each in errors)
    if by_module(request):
        return JsonResponse({"problem": problem}, status=422 if problem else 200)
    if problem:
        messages.error(request, problem)
    else:
        messages.success(request, "Saved. Your keys are the same wherever you sign in.")
    return redirect(f"{reverse('my_work')}#keys")


@require_POST
@requires(Role.ANNOTATOR)
def avoid(request: MemberRequest) -> HttpResponse:
    """Topics that a person would rather not read about."""
    annotator = annotator_for(user=request.user, workspace=request.membership.workspace)
    try:
        set_avoided(annotator=annotator, topics=request.POST.getlist("topics"))
    except AnnotateError as error:
        messages.error(request, f"{capfirst(str(error))}.")
    else:
        messages.success(request, "Saved. You are shown nothing about these.")
    return redirect("my_work")
