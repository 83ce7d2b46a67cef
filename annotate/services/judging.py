"""Storing what people said. Rows are added, never changed; the same send twice is one row."""

from __future__ import annotations

from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from annotate.errors import AnnotateError, KeyReused, LeaseLost, NothingToUndo, ProjectClosed
from annotate.formats.canonical import canonical_json, sha256
from annotate.models import Annotator, Answer, Assignment, Comparison, Judgment, Project
from annotate.services.serving import lease_end

State = Assignment.State
#: How long a judgment may be taken back.
UNDO_WINDOW = timedelta(minutes=10)
#: What the screen sends; left and right are where the person saw them.
SCREEN_ANSWERS = ("left", "right", "tie", "both_bad")
MAX_KEY = 120
MAX_RATIONALE = 10_000


def to_answer(screen: str, *, swapped: bool) -> str:
    """left/right as A/B: with `swapped`, response B was on the left."""
    if screen in (Answer.TIE, Answer.BOTH_BAD):
        return screen
    return Answer.A if (screen == "left") != swapped else Answer.B


def to_screen(judgment: Judgment) -> str:
    """The inverse of `to_answer`: what its author sent. A and B are not for their eyes."""
    if judgment.answer not in (Answer.A, Answer.B):
        return judgment.answer
    return "left" if (judgment.answer == Answer.A) != bool(judgment.swapped) else "right"


def submit_judgment(
    *,
    assignment: Assignment,
    annotator: Annotator,
    answer: str,
    idempotency_key: str,
    active_ms: int | None = None,
    rationale: str = "",
) -> Judgment:
    """Store one answer ("left", "right", "tie" or "both_bad").

    The same key with the same answer gives the row that is stored. A lease that ran out meanwhile
    still counts while a place is free. Raises KeyReused, LeaseLost, ProjectClosed, or
    AnnotateError for an answer the project does not offer.
    """
    check_submission(assignment.comparison.project, answer, idempotency_key, active_ms, rationale)
    body = sha256(canonical_json([assignment.pk, answer, rationale]))
    earlier = stored(annotator, idempotency_key, body)
    if earlier is not None:
        return earlier
    try:
        return store(assignment, annotator, answer, idempotency_key, body, active_ms, rationale)
    except IntegrityError:
        # A parallel send of the same key was faster; its row is the answer to this one too.
        earlier = stored(annotator, idempotency_key, body)
        if earlier is None:
            raise LeaseLost("you have judged this comparison already") from None
        return earlier


def check_submission(
    project: Project, answer: str, key: str, active_ms: int | None, rationale: str
) -> None:
    """Raise for what no state of the queue could make acceptable."""
    if project.state != Project.State.OPEN:
        raise ProjectClosed(f"{project} is {project.get_state_display().lower()}; not stored")
    if answer not in SCREEN_ANSWERS:
        raise AnnotateError(f"answer {answer!r} is none of {', '.join(SCREEN_ANSWERS)}")
    if answer == Answer.TIE and not project.allow_tie:
        raise AnnotateError("this project takes no ties")
    if answer == Answer.BOTH_BAD and not project.allow_both_bad:
        raise AnnotateError('this project does not offer "both bad"')
    if not key or len(key) > MAX_KEY:
        raise AnnotateError(f"the idempotency key must have 1 to {MAX_KEY} characters")
    if active_ms is not None and not 0 <= active_ms < 2**31:
        raise AnnotateError("active_ms must be a number of milliseconds from 0")
    if len(rationale) > MAX_RATIONALE:
        raise AnnotateError(f"the reason is longer than {MAX_RATIONALE} characters")


def stored(annotator: Annotator, key: str, body: str) -> Judgment | None:
    """The row stored under a key. Raises KeyReused where it says something else."""
    row = Judgment.objects.filter(annotator=annotator, idempotency_key=key).first()
    if row is not None and row.body_digest != body:
        raise KeyReused("this idempotency key was used for another answer; nothing was stored")
    return row


@transaction.atomic
def store(
    assignment: Assignment,
    annotator: Annotator,
    answer: str,
    key: str,
    body: str,
    active_ms: int | None,
    rationale: str,
) -> Judgment:
    comparison = Comparison.objects.select_for_update().get(pk=assignment.comparison_id)
    locked = Assignment.objects.select_for_update().get(pk=assignment.pk)
    # A parallel send of the same key may have held the lock that we have just waited for.
    earlier = stored(annotator, key, body)
    if earlier is not None:
        return earlier
    if locked.annotator_id != annotator.pk or locked.state in (State.JUDGED, State.SKIPPED):
        raise LeaseLost("this comparison is no longer yours; the next one is")
    if locked.state == State.EXPIRED:
        # Late, but welcome while somebody is still wanted.
        if not comparison.slots:
            raise LeaseLost("your time for this one had run out and others have answered it")
        Comparison.objects.filter(pk=comparison.pk).update(slots=F("slots") - 1)
    locked.state = State.JUDGED
    locked.save(update_fields=["state"])
    return Judgment.objects.create(
        workspace=comparison.workspace,
        comparison=comparison,
        annotator=annotator,
        assignment=locked,
        guideline=locked.guideline,
        answer=to_answer(answer, swapped=locked.swapped),
        swapped=locked.swapped,
        rationale=rationale,
        active_ms=active_ms,
        idempotency_key=key,
        body_digest=body,
        supersedes=latest_of_chain(comparison, annotator),
    )


def latest_of_chain(comparison: Comparison, annotator: Annotator) -> Judgment | None:
    """The last word so far of this person on this comparison (a withdrawal, after an undo)."""
    return Judgment.objects.filter(
        comparison=comparison, annotator=annotator, superseded_by__isnull=True
    ).first()


@transaction.atomic
def undo_judgment(*, project: Project, annotator: Annotator, idempotency_key: str) -> Assignment:
    """Take back this person's last judgment here, if it is younger than ten minutes.

    The comparison is theirs again at once. Whatever else they hold goes back to the queue. Raises
    NothingToUndo. The same key twice takes back one judgment.
    """
    mine = Judgment.objects.filter(annotator=annotator, comparison__project=project)
    again = mine.filter(idempotency_key=idempotency_key).select_related("assignment").first()
    if again is not None and again.assignment is not None:
        return again.assignment
    last = (
        mine.filter(
            superseded_by__isnull=True,
            assignment__isnull=False,
            created_at__gt=timezone.now() - UNDO_WINDOW,
        )
        .exclude(answer=Answer.WITHDRAWN)
        .select_related("assignment")
        .order_by("-pk")
        .first()
    )
    if last is None or last.assignment is None:
        raise NothingToUndo("there is nothing to take back: judgments can be undone for 10 minutes")
    for held in Assignment.objects.filter(
        annotator=annotator, comparison__project=project, state=State.LEASED
    ):
        Assignment.objects.filter(pk=held.pk).update(state=State.EXPIRED)
        Comparison.objects.filter(pk=held.comparison_id).update(slots=F("slots") + 1)
    Judgment.objects.create(
        workspace=last.workspace,
        comparison=last.comparison,
        annotator=annotator,
        assignment=last.assignment,
        guideline=last.guideline,
        answer=Answer.WITHDRAWN,
        swapped=last.swapped,
        idempotency_key=idempotency_key,
        body_digest=sha256("undo"),
        supersedes=last,
    )
    Assignment.objects.filter(pk=last.assignment.pk).update(
        state=State.LEASED, expires_at=lease_end(project)
    )
    last.assignment.refresh_from_db()
    return last.assignment
