"""The annotator's screen. Plain forms; the page's module makes them faster, never necessary."""

from __future__ import annotations

import functools
import uuid
from typing import Any, cast

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.text import capfirst
from django.views.decorators.http import require_POST, require_safe

from annotate.errors import AnnotateError, KeyReused, LeaseLost, ProjectClosed
from annotate.models import Annotator, Assignment, Guideline, Judgment, Project
from annotate.services.judging import submit_judgment, undo_judgment
from annotate.services.labels import Label, offered_labels
from annotate.services.rankings import Shown, shown_candidates
from annotate.services.serving import annotator_for, next_assignment, open_for
from annotate.views.projects import project_of
from annotate.views.questions import Choice, posted_reply, questions_of, with_places
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role

#: Counting further than this would cost more than the number is worth on the screen.
COUNT_UP_TO = 1000


def home(request: HttpRequest) -> HttpResponse:
    """Where a person's role begins."""
    if not request.user.is_authenticated:
        return redirect("account_login")
    membership = cast(MemberRequest, request).membership
    if not membership:
        return render(request, "accounts/no_workspace.html")
    return redirect("projects" if membership.allows(Role.RESEARCHER) else "queues")


@require_safe
@requires(Role.ANNOTATOR)
def queues(request: MemberRequest) -> HttpResponse:
    """Every open project of the workspace and what waits there for this person."""
    workspace = request.membership.workspace
    annotator = annotator_for(user=request.user, workspace=workspace)
    projects = Project.objects.filter(workspace=workspace, state=Project.State.OPEN).order_by(
        "name"
    )
    rows = [(project, waiting(project, annotator)) for project in projects]
    return render(request, "annotate/queues.html", {"rows": rows, "limit": COUNT_UP_TO})


def waiting(project: Project, annotator: Annotator) -> int:
    """How many comparisons wait for this person, counted up to a bound."""
    return open_for(project=project, annotator=annotator).order_by()[:COUNT_UP_TO].count()


@require_safe
@requires(Role.ANNOTATOR)
def judge(request: MemberRequest, slug: str) -> HttpResponse:
    """The next comparison, leased to this person."""
    project = project_of(request, slug)
    annotator = annotator_for(user=request.user, workspace=request.membership.workspace)
    return screen(request, project, annotator)


@require_POST
@requires(Role.ANNOTATOR)
def answer(request: MemberRequest, slug: str) -> HttpResponse:
    """Store an answer and show what comes next, in one request."""
    assignment = get_object_or_404(
        Assignment.objects.select_related("annotator", "comparison__project", "guideline"),
        pk=whole_number(request, "assignment") or 0,
        annotator__user=request.user,
        comparison__project__workspace=request.membership.workspace,
        comparison__project__slug=slug,
    )
    project, annotator = assignment.comparison.project, assignment.annotator
    status = 200
    try:
        submit_judgment(
            assignment=assignment,
            annotator=annotator,
            answer=request.POST.get("answer", ""),
            idempotency_key=request.POST.get("key", ""),
            active_ms=whole_number(request, "active_ms"),
            rationale=request.POST.get("rationale", "").strip(),
            **posted_reply(request.POST),
        )
    except (LeaseLost, ProjectClosed) as error:
        messages.info(request, str(error))
    except KeyReused as error:
        messages.error(request, str(error))
        status = 409
    except AnnotateError as error:
        messages.error(request, f"Not stored: {error}. Change your answer and send it again.")
        return after_post(request, project, annotator, 422, posted=request.POST)
    return after_post(request, project, annotator, status)


@require_POST
@requires(Role.ANNOTATOR)
def undo(request: MemberRequest, slug: str) -> HttpResponse:
    """Take the last judgment back and show its comparison again."""
    project = project_of(request, slug)
    annotator = annotator_for(user=request.user, workspace=request.membership.workspace)
    try:
        undo_judgment(
            project=project,
            annotator=annotator,
            idempotency_key=request.POST.get("key") or uuid.uuid4().hex,
        )
    except AnnotateError as error:
        messages.info(request, f"{capfirst(str(error))}.")
    return after_post(request, project, annotator, 200)


def after_post(
    request: MemberRequest,
    project: Project,
    annotator: Annotator,
    status: int,
    posted: QueryDict | None = None,
) -> HttpResponse:
    """The next screen at once for the page's module, a redirect for a plain form.

    posted: what was refused, and is shown again as it was filled in.
    """
    show = functools.partial(screen, request, project, annotator, status=status, posted=posted)
    if request.headers.get("X-Requested-With") == "fetch":
        return show(template="annotate/judge_screen.html")
    if posted is not None:
        return show()
    return redirect("judge", slug=project.slug)


def screen(
    request: MemberRequest,
    project: Project,
    annotator: Annotator,
    *,
    template: str = "annotate/judge.html",
    status: int = 200,
    posted: QueryDict | None = None,
) -> HttpResponse:
    closed = ""
    assignment = None
    try:
        assignment = next_assignment(project=project, annotator=annotator)
    except ProjectClosed as error:
        closed = str(error)
    left = right = None
    labels: list[Label] = []
    candidates: list[tuple[Shown, list[Choice]]] = []
    if assignment is None or posted is None or posted.get("assignment") != str(assignment.pk):
        posted = None  # of another screen
    if assignment is not None and project.kind == Project.Kind.LABELS:
        labels = offered_labels(assignment)
    elif assignment is not None and project.kind == Project.Kind.RANKINGS:
        candidates = with_places(shown_candidates(assignment), posted)
    elif assignment is not None:
        pair = tuple(response.text for response in assignment.comparison.pair)
        left, right = reversed(pair) if assignment.swapped else pair
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    mine = Judgment.objects.current().filter(
        annotator=annotator,
        comparison__project=project,
        comparison__group=None,
        created_at__gte=today,
    )
    context: dict[str, Any] = {
        "project": project,
        "fragment": template != "annotate/judge.html",
        "assignment": assignment,
        "labels": labels,
        "candidates": candidates,
        "questions": questions_of(form_of(assignment), posted) if assignment else {},
        "texts": {"left": left, "right": right},
        "said": posted or {},
        "left": left,
        "right": right,
        "closed": closed,
        "key": uuid.uuid4().hex,
        "judged_today": mine.count(),
        "waiting": waiting(project, annotator) + (assignment is not None),
        "limit": COUNT_UP_TO,
    }
    if not context["fragment"]:
        # The version this lease will be recorded under, which may be older than the newest.
        context["guideline"] = assignment.guideline if assignment else newest_guideline(project)
    return render(request, template, context, status=status)


def form_of(assignment: Assignment) -> dict[str, Any]:
    return dict(assignment.guideline.form) if assignment.guideline is not None else {}


def newest_guideline(project: Project) -> Guideline | None:
    return project.guidelines.order_by("-version").first()


def whole_number(request: HttpRequest, name: str) -> int | None:
    """A posted number of at most nine digits; None for anything else."""
    value = request.POST.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 9 else None
