"""The researcher's view of labelling: projects, their progress and agreement, their settings."""

from __future__ import annotations

from collections.abc import Callable

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotate.errors import AnnotateError, SlugTaken
from annotate.forms import (
    FreezeForm,
    ImportForm,
    ImportRankingsForm,
    ImportTextsForm,
    NewProjectForm,
    SettingsForm,
)
from annotate.models import Flag, Guideline, Project
from annotate.question_forms import QuestionsForm, as_fields
from annotate.selectors.consistency import consistency_of
from annotate.selectors.flags import flags_of
from annotate.selectors.forecast import project_forecast
from annotate.selectors.label_quality import label_quality
from annotate.selectors.progress import queue_progress, queue_progress_of
from annotate.selectors.quality import (
    annotator_matrix,
    matrix_cells,
    position_share,
    remembered_agreement,
)
from annotate.selectors.throughput import annotator_throughput
from annotate.services.flagging import settle_flag
from annotate.services.ingest import import_comparisons
from annotate.services.labels import current_labels, labels_as_text
from annotate.services.projects import answers_of, create_project, update_project
from annotate.services.questions import checked_form
from annotate.services.rankings import Shown, import_rankings
from annotate.services.texts import import_texts
from annotate.uploads import received
from annotate.views.questions import questions_of, with_places
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role

#: Flags on the project's page; the API lists them all.
SHOWN_FLAGS = 50


def project_of(request: MemberRequest, slug: str) -> Project:
    return get_object_or_404(Project, workspace=request.membership.workspace, slug=slug)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.RESEARCHER)
def projects(request: MemberRequest) -> HttpResponse:
    """All projects, and the form that makes one."""
    workspace = request.membership.workspace
    form = NewProjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = create_project(workspace=workspace, actor=request.user, **form.cleaned_data)
        except AnnotateError as error:
            form.add_error("slug" if isinstance(error, SlugTaken) else None, str(error))
        else:
            messages.success(request, f"{made} is there. Bring {made.noun}s in next.")
            return redirect("import_comparisons", slug=made.slug)
    found = list(Project.objects.filter(workspace=workspace).order_by("name"))
    progress = queue_progress_of(projects=found)
    rows = [(project, progress[project.pk]) for project in found]
    context = {"rows": rows, "form": form}
    return render(request, "annotate/projects.html", context, status=422 if form.errors else 200)


@require_safe
@requires(Role.RESEARCHER)
def project(request: MemberRequest, slug: str) -> HttpResponse:
    """One project: can its labels be trusted, who judges how fast, what was frozen."""
    found = project_of(request, slug)
    paces = annotator_throughput(project=found)
    matrix = annotator_matrix(project=found)
    context = {
        "project": found,
        "tab": "project",
        "progress": queue_progress(project=found),
        "forecast": project_forecast(project=found),
        "agreement": remembered_agreement(project=found),
        **trust_of(found),
        "consistency": consistency_of(project=found),
        "paces": paces,
        "fastest": max((pace.judgments_per_hour or 0 for pace in paces), default=0),
        "matrix": matrix,
        "heat": matrix_cells(matrix),
        "snapshots": found.snapshots.order_by("-number"),
        "rounds": found.rounds.order_by("-number"),
        "freeze_form": FreezeForm(project=found),
        "flags": flags_of(project=found)[:SHOWN_FLAGS],
        "asks_known": found.guidelines.filter(form__has_key="known_model").exists(),
    }
    return render(request, "annotate/project.html", context)


@require_POST
@requires(Role.ADMIN)
def settle(request: MemberRequest, slug: str, pk: int) -> HttpResponse:
    """An admin has dealt with a flag."""
    found = project_of(request, slug)
    flag = get_object_or_404(Flag, pk=pk, comparison__project=found)
    settle_flag(flag=flag, actor=request.user)
    return redirect("project", slug=slug)


def trust_of(project: Project) -> dict[str, object]:
    """What may make the answers of this kind of project doubtful, beside disagreement."""
    if project.kind == Project.Kind.LABELS:
        return {"quality": label_quality(project=project)}
    return {"share": position_share(project=project)}


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.RESEARCHER)
def settings(request: MemberRequest, slug: str) -> HttpResponse:
    found = project_of(request, slug)
    newest = found.guidelines.order_by("-version").first()
    fields = ("name", "state", "overlap", "lease_s", "allow_tie", "allow_both_bad")
    now = {field: getattr(found, field) for field in fields}
    shown = {
        "guidelines": newest.text if newest else "",
        "labels": labels_as_text(newest.labels) if newest else "",
    }
    form = SettingsForm(request.POST or None, kind=found.kind, initial={**now, **shown})
    asked = QuestionsForm(
        request.POST or None, kind=found.kind, initial=as_fields(newest.form if newest else {})
    )
    if "preview" in request.POST and request.headers.get("X-Requested-With") == "fetch":
        return render(request, "annotate/question_preview.html", preview(found, newest, asked))
    good = request.method == "POST" and form.is_valid() and asked.is_valid()
    if good and "preview" not in request.POST:
        try:
            update_project(project=found, form=asked.as_form(), **form.cleaned_data)
        except AnnotateError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, "Saved.")
            return redirect("project_settings", slug=slug)
    context = {
        **preview(found, newest, asked),
        "tab": "settings",
        "form": form,
        "asked": asked,
        "guideline": newest,
    }
    status = 422 if form.errors or asked.errors else 200
    return render(request, "annotate/project_settings.html", context, status=status)


#: The form and the service of each kind's files.
IMPORTS: dict[str, tuple[type[forms.Form], Callable[..., object]]] = {
    Project.Kind.COMPARISONS: (ImportForm, import_comparisons),
    Project.Kind.LABELS: (ImportTextsForm, import_texts),
    Project.Kind.RANKINGS: (ImportRankingsForm, import_rankings),
}
#: What the preview shows the questions beside.
SAMPLE = {
    "prompt": "How do I get red wine out of a white cotton shirt?",
    "left": "Blot it, cover it with salt, then rinse it with cold water before you wash it.",
    "right": "Use hot water and bleach at once; heat always helps.",
}


def preview(project: Project, newest: Guideline | None, asked: QuestionsForm) -> dict[str, object]:
    """The context of question_preview.html: what was filled in, or what is asked now."""
    context: dict[str, object] = {
        "project": project,
        "sample": SAMPLE,
        "texts": {"left": SAMPLE["left"], "right": SAMPLE["right"]},
    }
    if project.kind == Project.Kind.RANKINGS:
        texts = [SAMPLE["left"], SAMPLE["right"], "Ask a dry cleaner.", "Wine never comes out."]
        shown = [Shown(place, text) for place, text in enumerate(texts, start=1)]
        context["candidates"] = with_places(shown)
    if not asked.is_bound:
        return context | {"questions": questions_of(newest.form if newest else {})}
    if not asked.is_valid():
        words = [str(error) for errors in asked.errors.values() for error in errors]
        return context | {"refused": "; ".join(words)}
    try:
        form = checked_form(
            kind=project.kind,
            form=asked.as_form(),
            answers=answers_of(project.kind, current_labels(project)),
        )
    except AnnotateError as error:
        return context | {"refused": str(error)}
    return context | {"questions": questions_of(form)}


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.RESEARCHER)
def import_file(request: MemberRequest, slug: str) -> HttpResponse:
    """Comparisons or texts from a file; what cannot be used is listed line by line."""
    found = project_of(request, slug)
    form_of, bring = IMPORTS[found.kind]
    form = form_of(request.POST or None, request.FILES or None)
    context = {"project": found, "tab": "import", "form": form, "report": None, "refused": None}
    status = 200
    if request.method == "POST" and form.is_valid():
        asked = dict(form.cleaned_data)
        try:
            with received(asked.pop("file")) as path:
                context["report"] = bring(project=found, path=path, **asked)
        except AnnotateError as error:
            context["refused"] = error
            status = 422
    elif form.errors:
        status = 422
    return render(request, "annotate/import.html", context, status=status)
