"""The annotator's screen. Plain forms; the page's modules make them faster, never necessary.

What the modules send (`X-Requested-With: fetch`) is the same forms; they get JSON: what was refused
and why, and, where they asked, the screens that come next.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, cast

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.middleware.csrf import get_token
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.text import capfirst
from django.views.decorators.http import require_POST, require_safe

from annotate.errors import AnnotateError, KeyReused, LeaseLost, NothingToUndo, ProjectClosed
from annotate.models import Annotator, Assignment, Flag, Guideline, Judgment, Project
from annotate.selectors.guidelines import guideline_versions
from annotate.selectors.streaks import days_in_a_row
from annotate.selectors.terms import consent_is_asked
from annotate.services.flagging import flag_comparison
from annotate.services.hotkeys import hotkeys_of
from annotate.services.judging import submit_judgment, undo_judgment
from annotate.services.labels import offered_labels
from annotate.services.prefetching import lease_ahead, show_assignment
from annotate.services.rankings import shown_candidates
from annotate.services.searching import waiting
from annotate.services.serving import IN_HAND, annotator_for, next_assignment, skip_assignment
from annotate.views.projects import project_of
from annotate.views.questions import posted_reply, questions_of, with_places
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role

#: Refusals that say that something else happened meanwhile; the others are mistakes of the sender.
OVERTAKEN = (LeaseLost, ProjectClosed, KeyReused, NothingToUndo)
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
    rows = [
        (project, waiting(project=project, annotator=annotator, limit=COUNT_UP_TO))
        for project in projects
    ]
    return render(request, "annotate/queues.html", {"rows": rows, "limit": COUNT_UP_TO})


@require_safe
@requires(Role.ANNOTATOR)
def judge(request: MemberRequest, slug: str) -> HttpResponse:
    """The next comparison, leased to this person."""
    project = project_of(request, slug)
    annotator = annotator_for(user=request.user, workspace=request.membership.workspace)
    return page(request, project, annotator)


def page(
    request: MemberRequest,
    project: Project,
    annotator: Annotator,
    *,
    posted: QueryDict | None = None,
    status: int = 200,
) -> HttpResponse:
    """The whole page; `posted` was refused, and is shown again as it was filled in."""
    if consent_is_asked(project=project, annotator=annotator):
        return render(request, "annotate/consent.html", {"project": project})
    assignment, closed = upcoming(project, annotator)
    left = waiting(project=project, annotator=annotator, limit=COUNT_UP_TO)
    context = {
        **screen_parts(request, project, assignment, closed, posted=posted),
        "annotator": annotator,
        "judged_today": judged_today(project, annotator),
        # The version this lease will be recorded under, which may be older than the newest.
        "guideline": assignment.guideline if assignment else newest_guideline(project),
        "waiting": left + (assignment is not None),
        "limit": COUNT_UP_TO,
        "streak": days_in_a_row(annotator=annotator),
        "hotkeys": vars(hotkeys_of(user=request.user)),
    }
    return render(request, "annotate/judge.html", context, status=status)


@require_safe
@requires(Role.ANNOTATOR)
def guidelines(request: MemberRequest, slug: str) -> HttpResponse:
    """Every version of what is asked, and what each changed."""
    project = project_of(request, slug)
    context = {
        "project": project,
        "guideline": newest_guideline(project),
        "versions": guideline_versions(project=project),
    }
    return render(request, "annotate/guidelines.html", context)


@require_POST
@requires(Role.ANNOTATOR)
def answer(request: MemberRequest, slug: str) -> HttpResponse:
    """Store an answer and show what comes next, in one request."""
    assignment = posted_assignment(request, slug)
    project, annotator = assignment.comparison.project, assignment.annotator

    def submit() -> None:
        submit_judgment(
            assignment=assignment,
            annotator=annotator,
            answer=request.POST.get("answer", ""),
            idempotency_key=request.POST.get("key", ""),
            active_ms=whole_number(request, "active_ms"),
            rationale=request.POST.get("rationale", "").strip(),
            **posted_reply(request.POST),
        )

    again = "Not stored: {}. Change your answer and send it again."
    return act(request, project, annotator, submit, mistake=again)


@require_POST
@requires(Role.ANNOTATOR)
def skip(request: MemberRequest, slug: str) -> HttpResponse:
    """Put a comparison aside, with a reason. Sent twice it is skipped once."""
    assignment = posted_assignment(request, slug)
    project, annotator = assignment.comparison.project, assignment.annotator

    def put_aside() -> None:
        if assignment.state != Assignment.State.SKIPPED:
            skip_assignment(
                assignment=assignment,
                annotator=annotator,
                reason=request.POST.get("reason", ""),
                note=request.POST.get("note", "").strip(),
            )

    return act(request, project, annotator, put_aside)


@require_POST
@requires(Role.ANNOTATOR)
def flag(request: MemberRequest, slug: str) -> HttpResponse:
    """Tell the admins what is wrong with a comparison; it stays on the screen."""
    assignment = posted_assignment(request, slug)
    project, annotator = assignment.comparison.project, assignment.annotator

    def tell() -> None:
        flag_comparison(
            assignment=assignment,
            annotator=annotator,
            kind=request.POST.get("kind", ""),
            note=request.POST.get("note", "").strip(),
        )

    return act(request, project, annotator, tell, done="Flagged: the admins see it.")


@require_POST
@requires(Role.ANNOTATOR)
def undo(request: MemberRequest, slug: str) -> HttpResponse:
    """Take the last judgment back and show its comparison again."""
    project = project_of(request, slug)
    annotator = annotator_for(user=request.user, workspace=request.membership.workspace)

    def take_back() -> None:
        undo_judgment(
            project=project,
            annotator=annotator,
            idempotency_key=request.POST.get("key") or uuid.uuid4().hex,
            expected=whole_number(request, "assignment"),
        )

    return act(request, project, annotator, take_back)


@require_POST
@requires(Role.ANNOTATOR)
def ahead(request: MemberRequest, slug: str) -> HttpResponse:
    """The screens that come next, leased for a minute; asking again renews them."""
    project = project_of(request, slug)
    annotator = annotator_for(user=request.user, workspace=request.membership.workspace)
    return answered(request, project, annotator)


@require_POST
@requires(Role.ANNOTATOR)
def shown(request: MemberRequest, slug: str) -> HttpResponse:
    """A screen that was fetched ahead is read now: renew its lease, or say that it is lost."""
    assignment = posted_assignment(request, slug)
    project, annotator = assignment.comparison.project, assignment.annotator

    def renew() -> None:
        show_assignment(assignment=assignment, annotator=annotator)

    return act(request, project, annotator, renew)


def posted_assignment(request: MemberRequest, slug: str) -> Assignment:
    return assignment_of(request, slug, whole_number(request, "assignment") or 0)


def assignment_of(request: MemberRequest, slug: str, pk: int) -> Assignment:
    """This person's assignment in this project; anybody else's is not found."""
    found = IN_HAND.first(user=request.user.pk, workspace=request.membership.workspace_id, pk=pk)
    if found is None or found.comparison.project.slug != slug:
        raise Http404
    return found


def act(
    request: MemberRequest,
    project: Project,
    annotator: Annotator,
    work: Callable[[], None],
    *,
    mistake: str = "{}",
    done: str = "",
) -> HttpResponse:
    """Do what was posted: JSON for the page's modules, a redirect for a plain form."""
    problem, status = "", 200
    if by_module(request) and request.POST.get("person", str(annotator.pk)) != str(annotator.pk):
        return JsonResponse({"problem": "somebody else is signed in by now"}, status=401)
    try:
        work()
    except AnnotateError as error:
        problem, status = str(error), 409 if isinstance(error, OVERTAKEN) else 422
    if by_module(request):
        return answered(request, project, annotator, problem=problem, status=status)
    if problem:
        said = messages.info if status == 409 else messages.error
        said(request, mistake.format(problem) if status == 422 else f"{capfirst(problem)}.")
        if status == 422:
            return page(request, project, annotator, posted=request.POST, status=422)
    elif done:
        messages.success(request, done)
    return redirect("judge", slug=project.slug)


def by_module(request: HttpRequest) -> bool:
    return request.headers.get("X-Requested-With") == "fetch"


def answered(
    request: MemberRequest,
    project: Project,
    annotator: Annotator,
    *,
    problem: str = "",
    status: int = 200,
) -> JsonResponse:
    """JSON with what was refused, and what the modules asked for beside it.

    `shown` names what they show now, `next` asks for a screen because they have none, `have` lists
    the screens they have ahead and asks for more.
    """
    body: dict[str, Any] = {"problem": problem}
    on_screen = whole_number(request, "shown")
    if on_screen is not None:
        body["about"] = on_screen
        body["lost"] = why_lost(request, project, annotator, on_screen)
    if request.POST.get("next"):
        assignment, closed = upcoming(project, annotator)
        body["next"] = screen_of(request, project, assignment, closed)
    if "have" in request.POST:
        have = {int(pk) for pk in request.POST["have"].split(",") if pk.isdecimal()}
        try:
            held = lease_ahead(project=project, annotator=annotator)
        except ProjectClosed:
            held = []
        body["gone"] = sorted(have - {each.pk for each in held})
        body["screens"] = [
            screen_of(request, project, each) for each in held if each.pk not in have
        ]
    return JsonResponse(body, status=status)


def why_lost(request: MemberRequest, project: Project, annotator: Annotator, pk: int) -> str:
    """Renew the lease of what is on the screen; why it is lost, or nothing."""
    try:
        show_assignment(assignment=assignment_of(request, project.slug, pk), annotator=annotator)
    except (LeaseLost, ProjectClosed) as error:
        return str(error)
    return ""


def upcoming(project: Project, annotator: Annotator) -> tuple[Assignment | None, str]:
    """(what comes next, why the project serves nothing)."""
    try:
        return next_assignment(project=project, annotator=annotator), ""
    except ProjectClosed as error:
        return None, str(error)


def screen_of(
    request: MemberRequest,
    project: Project,
    assignment: Assignment | None,
    closed: str = "",
) -> dict[str, Any]:
    """A screen as the modules paint it; without an assignment it says that nothing is left."""
    parts = screen_parts(request, project, assignment, closed)
    html = render_to_string("annotate/judge_screen.html", parts)
    if assignment is None:
        return {"assignment": None, "html": html}
    guideline, left_s = assignment.guideline, assignment.expires_at - timezone.now()
    return {
        "assignment": assignment.pk,
        "html": html,
        "guideline": guideline.version if guideline else 0,
        "expires_in_s": max(0, round(left_s.total_seconds())),
    }


def screen_parts(
    request: MemberRequest,
    project: Project,
    assignment: Assignment | None,
    closed: str = "",
    *,
    posted: QueryDict | None = None,
) -> dict[str, Any]:
    """What judge_screen.html needs to show one assignment, or that there is none."""
    if assignment is None or posted is None or posted.get("assignment") != str(assignment.pk):
        posted = None  # of another screen
    parts: dict[str, Any] = {
        "project": project,
        "assignment": assignment,
        "closed": closed,
        "labels": [],
        "questions": questions_of(form_of(assignment), posted) if assignment else {},
        "said": posted or {},
        "key": uuid.uuid4().hex,
        "csrf_token": get_token(request),
        "skip_reasons": Assignment.SkipReason.choices,
        "flag_kinds": Flag.Kind.choices,
    }
    if assignment is not None and project.kind == Project.Kind.LABELS:
        parts["labels"] = offered_labels(assignment)
    elif assignment is not None and project.kind == Project.Kind.RANKINGS:
        parts["candidates"] = with_places(shown_candidates(assignment), posted)
    elif assignment is not None:
        a, b = (response.text for response in assignment.comparison.pair)
        parts["left"], parts["right"] = (b, a) if assignment.swapped else (a, b)
        parts["texts"] = {"left": parts["left"], "right": parts["right"]}
    return parts


def form_of(assignment: Assignment) -> dict[str, Any]:
    return dict(assignment.guideline.form) if assignment.guideline is not None else {}


def judged_today(project: Project, annotator: Annotator) -> int:
    """This person's judgments here since midnight UTC."""
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    mine = Judgment.objects.standing().filter(
        annotator=annotator,
        comparison__project=project,
        comparison__group=None,
        created_at__gte=today,
    )
    return mine.count()


def newest_guideline(project: Project) -> Guideline | None:
    return project.guidelines.order_by("-version").first()


def whole_number(request: HttpRequest, name: str) -> int | None:
    """A posted number of at most nine digits; None for anything else."""
    value = request.POST.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 9 else None
