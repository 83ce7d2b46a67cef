"""Making projects and changing their settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Count, F, IntegerField, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce, Greatest

from annotate.errors import AnnotateError, OverlapInUse, SlugTaken
from annotate.formats.canonical import text_problem
from annotate.models import Assignment, Guideline, Judgment, Project
from annotate.services.labels import Label, checked_labels, current_labels
from annotate.services.questions import SCREEN_ANSWERS, checked_form
from annotate.services.searching import search_from_start
from rlhf_platform.accounts.models import User, Workspace

SLUG = re.compile(r"[-a-zA-Z0-9_]{1,50}")
MAX_OVERLAP = 100
#: Seconds; a lease longer than a week is a comparison that nobody gets.
MIN_LEASE_S, MAX_LEASE_S = 10, 7 * 24 * 3600


def create_project(
    *,
    workspace: Workspace,
    name: str,
    slug: str,
    overlap: int = 1,
    guidelines: str = "",
    actor: User | None = None,
    allow_tie: bool = True,
    allow_both_bad: bool = True,
    lease_s: int = 900,
    kind: str = Project.Kind.COMPARISONS,
    labels: Sequence[Label] | None = None,
    form: Mapping[str, Any] | None = None,
) -> Project:
    """A project with version 1 of its guidelines, its labels (of that kind) and its questions.

    Raises SlugTaken, or AnnotateError for a bad slug, a text or a number that cannot be stored, an
    unknown kind, and labels or questions that do not go with the kind.
    """
    check_slug(slug, "project")
    refuse_settings(name=name, guidelines=guidelines, state=None, overlap=overlap, lease_s=lease_s)
    listed = checked_labels(kind=kind, labels=labels or [])
    asked = checked_form(kind=kind, form=form or {}, answers=answers_of(kind, listed))
    try:
        with transaction.atomic():
            project = Project.objects.create(
                workspace=workspace,
                name=name,
                slug=slug,
                kind=kind,
                overlap=overlap,
                allow_tie=allow_tie,
                allow_both_bad=allow_both_bad,
                lease_s=lease_s,
                created_by=actor,
            )
            Guideline.objects.create(
                project=project, version=1, text=guidelines, labels=listed, form=asked
            )
    except IntegrityError:
        raise SlugTaken(f"the workspace already has a project {slug!r}") from None
    return project


def answers_of(kind: str, labels: Sequence[Label]) -> list[str]:
    """The answers that a condition of a form may name."""
    if kind == Project.Kind.RANKINGS:
        return []
    return [label["name"] for label in labels] or list(SCREEN_ANSWERS)


def open_workspace(*, slug: str) -> tuple[Workspace, bool]:
    """(the workspace of that short name, whether it was made). Raises AnnotateError."""
    check_slug(slug, "workspace")
    return Workspace.objects.get_or_create(
        slug=slug, defaults={"name": slug.replace("-", " ").title()}
    )


def check_slug(slug: str, what: str) -> None:
    """Raise AnnotateError for what cannot be a short name."""
    if not SLUG.fullmatch(slug):
        raise AnnotateError(
            f"{slug!r} cannot be a {what}'s short name: use 1 to 50 letters, digits, - and _"
        )


def refuse_settings(
    *,
    name: str | None,
    guidelines: str | None,
    state: str | None,
    overlap: int | None,
    lease_s: int | None,
) -> None:
    """Raise AnnotateError for a setting out of range; None is not looked at."""
    for value, what in ((name, "the project's name"), (guidelines, "the guidelines")):
        problem = text_problem(value, what) if value is not None else None
        if problem:
            raise AnnotateError(problem)
    if name is not None and not 1 <= len(name.strip()) <= 120:
        raise AnnotateError(f"the project's name has {len(name)} characters; allowed: 1 to 120")
    if state is not None and state not in Project.State.values:
        raise AnnotateError(f"state {state!r} is none of {', '.join(Project.State.values)}")
    if overlap is not None and not 1 <= overlap <= MAX_OVERLAP:
        raise AnnotateError(f"overlap is {overlap}; allowed: 1 to {MAX_OVERLAP}")
    if lease_s is not None and not MIN_LEASE_S <= lease_s <= MAX_LEASE_S:
        raise AnnotateError(f"lease_s is {lease_s}; allowed: {MIN_LEASE_S} to {MAX_LEASE_S}")


@transaction.atomic
def update_project(
    *,
    project: Project,
    name: str | None = None,
    state: str | None = None,
    overlap: int | None = None,
    allow_tie: bool | None = None,
    allow_both_bad: bool | None = None,
    lease_s: int | None = None,
    guidelines: str | None = None,
    labels: Sequence[Label] | None = None,
    form: Mapping[str, Any] | None = None,
) -> Project:
    """Change what is not None; other guidelines, labels or questions are the next version of all.

    Another overlap changes the free places of every comparison, so that judged + leased + slots =
    overlap still holds. Raises OverlapInUse where more is judged or leased already, AnnotateError
    for a value out of range.
    """
    refuse_settings(name=name, guidelines=guidelines, state=state, overlap=overlap, lease_s=lease_s)
    listed = checked_labels(kind=project.kind, labels=labels) if labels is not None else None
    questions = None
    if form is not None:
        names = listed if listed is not None else current_labels(project)
        answers = answers_of(project.kind, names)
        questions = checked_form(kind=project.kind, form=form, answers=answers)
    # The row serialises two changes, and holds back imports that would open with the old overlap.
    locked = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    if overlap is not None and overlap != locked.overlap:
        change_overlap(locked, overlap)
    asked = {
        "name": name.strip() if name is not None else None,
        "state": state,
        "overlap": overlap,
        "allow_tie": allow_tie,
        "allow_both_bad": allow_both_bad,
        "lease_s": lease_s,
    }
    changed = {field: value for field, value in asked.items() if value is not None}
    for field, value in changed.items():
        setattr(locked, field, value)
    locked.save(update_fields=list(changed))
    if guidelines is not None or listed is not None or questions is not None:
        next_version(locked, text=guidelines, labels=listed, form=questions)
    project.refresh_from_db()
    return project


def next_version(project: Project, **changed: Any) -> None:
    """Another version of what is asked (text, labels, form), where it differs; None is taken from
    the latest."""
    latest = project.guidelines.order_by("-version").first() or Guideline(version=0)
    now = {
        name: getattr(latest, name) if value is None else value for name, value in changed.items()
    }
    if latest.version == 0 or any(value != getattr(latest, name) for name, value in now.items()):
        Guideline.objects.create(project=project, version=latest.version + 1, **now)


def change_overlap(project: Project, overlap: int) -> None:
    """Give every comparison the places it has under another overlap. Raises OverlapInUse.

    A comparison that came with more judgments than anybody asked for just has no place free.
    """
    # A lease, a judgment or an expiry changes the comparison's row in its own transaction, so the
    # counts cannot move between these locks and the update.
    queued = project.comparisons.filter(group=None)
    list(queued.select_for_update().order_by("pk").values_list("pk", flat=True))
    held = Assignment.objects.filter(state__in=Assignment.HOLDING, is_repeat=False)
    imported = Judgment.objects.filter(assignment__isnull=True, supersedes__isnull=True)
    counted = queued.annotate(held=count_of(held), taken=F("held") + count_of(imported))
    beyond = counted.filter(held__gt=0, taken__gt=overlap)
    most = beyond.order_by("-taken").values_list("taken", flat=True).first()
    if most is not None:
        raise OverlapInUse(
            f"overlap cannot be {overlap}: {beyond.count()} comparisons have more judgments and "
            f"leases than that already (up to {most}); {most} or more is possible"
        )
    queued.update(slots=Greatest(Value(0), Value(overlap) - count_of(held) - count_of(imported)))
    search_from_start(project)


def count_of(rows: QuerySet[Assignment] | QuerySet[Judgment]) -> Coalesce:
    """How many of `rows` the outer comparison has."""
    mine = rows.filter(comparison=OuterRef("pk")).order_by().values("comparison")
    count = Subquery(mine.annotate(n=Count("pk")).values("n"), output_field=IntegerField())
    return Coalesce(count, 0)
