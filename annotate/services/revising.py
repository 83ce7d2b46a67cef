"""A person's later word on what they judged: a new row that supersedes the first."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from annotate.errors import AnnotateError, KeyReused, ProjectClosed
from annotate.models import Annotator, Answer, Judgment, Project
from annotate.services.judging import (
    body_digest,
    check_key,
    check_offered,
    replies_for,
    words_for,
)
from annotate.services.serving import lock_person


def revisable(judgment: Judgment, project: Project) -> bool:
    """Whether its author may still say otherwise; a ranking is said once."""
    window = timedelta(hours=project.revise_window_h)
    return (
        judgment.assignment_id is not None
        and judgment.answer != Answer.RANKING
        and project.state == Project.State.OPEN
        and judgment.created_at > timezone.now() - window
    )


@transaction.atomic
def revise_judgment(
    *,
    judgment: Judgment,
    annotator: Annotator,
    answer: str,
    idempotency_key: str,
    rationale: str = "",
    strength: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> Judgment:
    """Store another answer in place of a judgment that stands; the first one stays in history.

    answer, strength, details: as `submit_judgment` takes them. Nothing of the first judgment is
    carried over: what the form requires is said again. The same key with the same answer gives
    what is stored. Raises KeyReused, ProjectClosed, or AnnotateError.
    """
    check_key(idempotency_key)
    lock_person(annotator)
    body = body_digest("revise", judgment.pk, answer, rationale, strength=strength, details=details)
    again = Judgment.objects.filter(annotator=annotator, idempotency_key=idempotency_key).first()
    if again is not None:
        if again.body_digest != body:
            raise KeyReused("this idempotency key was used for another answer; nothing was stored")
        return again
    standing = Judgment.objects.standing().filter(pk=judgment.pk, annotator=annotator).first()
    assignment = judgment.assignment
    if standing is None or assignment is None:
        raise AnnotateError("only your own judgment that stands can be revised")
    project = judgment.comparison.project
    check_offered(project, answer)
    if not revisable(standing, project):
        raise ProjectClosed(
            f"judgments of {project} can be revised for {project.revise_window_h} hours"
        )
    said = words_for(assignment, answer) | replies_for(
        assignment, answer, strength=strength, details=details or {}, rationale=rationale
    )
    return Judgment.objects.create(
        workspace_id=standing.workspace_id,
        comparison_id=standing.comparison_id,
        annotator=annotator,
        assignment=assignment,
        is_repeat=standing.is_repeat,
        guideline_id=standing.guideline_id,
        **said,
        swapped=standing.swapped,
        rationale=rationale,
        active_ms=standing.active_ms,
        idempotency_key=idempotency_key,
        body_digest=body,
        supersedes=standing,
    )
