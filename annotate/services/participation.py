"""Who takes part in a project and on what terms: named people, limits, consent, what they avoid."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from annotate.errors import AnnotateError
from annotate.formats.canonical import text_problem
from annotate.models import Annotator, Participation, Project, Report
from annotate.services.serving import annotator_for
from annotate.services.topics import checked_topics, release_avoided
from annotate.services.walls import check_one_workspace
from rlhf_platform.accounts.models import Membership, User

MAX_TEXT = 20_000
#: Topics that one person may opt out of.
MAX_AVOIDED = 200
MAX_REPEAT = 1000
#: What `update_terms` changes of a project.
TERMS = (
    "restricted", "quota", "daily_limit", "daily_goal", "revise_window_h", "unblinded",
    "repeat_every", "repeat_after",
    "content_warning", "topics", "consent_text", "blur", "break_minutes",
)  # fmt: skip


@transaction.atomic
def update_terms(*, project: Project, named: Collection[User] | None = None, **terms: Any) -> None:
    """Change on what terms people judge; another warning or consent text is asked for anew.

    named: the members who are named for the project, all of them. Raises AnnotateError.
    """
    unknown = sorted(set(terms) - set(TERMS))
    if unknown:
        raise AnnotateError(f"a project has no {', '.join(unknown)}")
    if "topics" in terms:
        terms["topics"] = checked_topics(terms["topics"])
    for name in ("content_warning", "consent_text"):
        problem = text_problem(terms.get(name, ""), name.replace("_", " "))
        if problem or len(terms.get(name, "")) > MAX_TEXT:
            raise AnnotateError(problem or f"{name} is longer than {MAX_TEXT} characters")
    locked = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    check_repeats(locked, terms)
    asked = ("content_warning", "consent_text")
    if any(name in terms and terms[name] != getattr(locked, name) for name in asked):
        locked.consent_version += 1
    for name, value in terms.items():
        setattr(locked, name, value)
    locked.save(update_fields=[*terms, "consent_version"])
    if named is not None:
        name_people(project=locked, named=named)
    project.refresh_from_db()


def check_repeats(project: Project, terms: dict[str, Any]) -> None:
    """Raises AnnotateError for repeats that cannot be."""
    every, after = terms.get("repeat_every"), terms.get("repeat_after", 1)
    if every is not None and project.kind == Project.Kind.RANKINGS:
        raise AnnotateError("a ranking has no two sides to swap, so it is never repeated")
    if every is not None and not 2 <= every <= MAX_REPEAT:
        raise AnnotateError(f"repeat_every is {every}; use 2 to {MAX_REPEAT}, or none")
    if not 1 <= after <= MAX_REPEAT:
        raise AnnotateError(f"repeat_after is {after}; use 1 to {MAX_REPEAT}")


def name_people(*, project: Project, named: Collection[User]) -> None:
    """These members are named for the project, and nobody else is."""
    members = Membership.objects.filter(workspace=project.workspace, user__in=named)
    people = [annotator_for(user=each.user, workspace=project.workspace) for each in members]
    Participation.objects.filter(project=project).exclude(annotator__in=people).update(named=False)
    for annotator in people:
        Participation.objects.update_or_create(
            project=project,
            annotator=annotator,
            defaults={"workspace": project.workspace, "named": True},
        )


def named_people(*, project: Project) -> QuerySet[User]:
    """The members who are named for the project."""
    return User.objects.filter(
        annotator__participations__project=project, annotator__participations__named=True
    ).order_by("email")


def accept_consent(*, project: Project, annotator: Annotator, version: int) -> Participation:
    """Note that a person accepted the consent text that was shown to them.

    Raises AnnotateError where another version is asked for by now.
    """
    check_one_workspace(project, annotator)
    if version != project.consent_version:
        raise AnnotateError("the text has changed meanwhile; read the new one below")
    part, _ = Participation.objects.update_or_create(
        project=project,
        annotator=annotator,
        defaults={
            "workspace": project.workspace,
            "consent_version": version,
            "consented_at": timezone.now(),
        },
    )
    return part


def set_avoided(*, annotator: Annotator, topics: Any) -> None:
    """Topics that a person would rather not read about: what they hold of them goes back."""
    annotator.avoids = checked_topics(topics, most=MAX_AVOIDED)
    annotator.save(update_fields=["avoids"])
    release_avoided(annotator)


def report_to_admins(*, project: Project, annotator: Annotator, text: str) -> Report:
    """What a person tells the admins about a project. Raises AnnotateError for an empty text."""
    check_one_workspace(project, annotator)
    problem = text_problem(text, "the report")
    if problem or not text.strip() or len(text) > MAX_TEXT:
        raise AnnotateError(problem or f"a report has 1 to {MAX_TEXT} characters")
    return Report.objects.create(
        workspace=project.workspace, project=project, annotator=annotator, text=text.strip()
    )


def settle_report(*, report: Report, user: User) -> None:
    """An admin has dealt with it; the first one who says so is kept."""
    Report.objects.filter(pk=report.pk, settled_at=None).update(
        settled_at=timezone.now(), settled_by=user
    )
