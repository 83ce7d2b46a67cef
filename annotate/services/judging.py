"""Storing what people said. Rows are added, never changed; the same send twice is one row."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from annotate.errors import AnnotateError, KeyReused, LeaseLost, NothingToUndo, ProjectClosed
from annotate.formats.canonical import canonical_json, sha256, text_problem
from annotate.models import Annotator, Answer, Assignment, Comparison, Judgment, Project
from annotate.services.labels import offered_labels
from annotate.services.questions import SCREEN_ANSWERS, Reply, checked_reply
from annotate.services.rankings import checked_ranking, store_pair_judgments
from annotate.services.searching import from_now
from annotate.services.serving import lock_person, release
from rlhf_platform.prepared import PreparedUpdate

State = Assignment.State
#: How long a judgment may be taken back.
UNDO_WINDOW = timedelta(minutes=10)
MAX_KEY = 120


def to_answer(screen: str, *, swapped: bool) -> str:
    """left/right as A/B: with `swapped`, response B was on the left."""
    if screen in (Answer.TIE, Answer.BOTH_BAD):
        return screen
    return Answer.A if (screen == "left") != swapped else Answer.B


def to_screen(judgment: Judgment) -> str:
    """The inverse of `to_answer`: what its author sent. A and B are not for their eyes."""
    if judgment.label:
        return judgment.label
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
    strength: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> Judgment:
    """Store one answer: "left", "right", "tie" or "both_bad"; a label; or "ranking".

    strength and details answer what else the guideline's form asks, by left and right: strength is
    negative for left (annotate/services/questions.py). A ranking is in `details["ranking"]`: lists
    of places as they were shown, from 1, the best first.
    The same key with the same answer gives the row that is stored. A lease that ran out meanwhile
    still counts while a place is free. Raises KeyReused, LeaseLost, ProjectClosed, or
    AnnotateError for an answer the project does not offer, or a reply that does not fit.
    """
    check_key(idempotency_key)
    said = words_for(assignment, answer) | replies_for(
        assignment, answer, strength=strength, details=details or {}, rationale=rationale
    )
    if active_ms is not None and not 0 <= active_ms < 2**31:
        raise AnnotateError("active_ms must be a number of milliseconds from 0")
    body = body_digest(assignment.pk, answer, rationale, strength=strength, details=details)

    def stored(latest: Judgment | None) -> Judgment:
        judgment = Judgment.objects.create(
            workspace_id=assignment.workspace_id,
            comparison_id=assignment.comparison_id,
            annotator=annotator,
            assignment=assignment,
            is_repeat=assignment.is_repeat,
            guideline_id=assignment.guideline_id,
            **said,
            swapped=assignment.swapped,
            rationale=rationale,
            active_ms=active_ms,
            idempotency_key=idempotency_key,
            body_digest=body,
            supersedes=latest,
        )
        if judgment.answer == Answer.RANKING:
            store_pair_judgments(judgment)
        return judgment

    try:
        check_offered(assignment.comparison.project, answer)
        with transaction.atomic():
            if answered(assignment, annotator):
                return stored(None)
    except (AnnotateError, IntegrityError):
        # Not the first word under this key, or of this person on this comparison; or a refusal,
        # which a repeat of what is stored does not meet.
        pass
    with transaction.atomic():
        earlier, latest = said_before(assignment, annotator, idempotency_key, body)
        if earlier is not None:
            return earlier
        check_offered(assignment.comparison.project, answer)
        if answered(assignment, annotator):
            if latest is not None and latest.answer != Answer.WITHDRAWN:
                # Taken back in another window since we looked.
                _, latest = said_before(assignment, annotator, idempotency_key, body)
            return stored(latest)
    # Apart: PostgreSQL keeps a row locked that an update waited for and then did not match, and
    # whoever waits for the person must hold no assignment.
    with transaction.atomic():
        lock_person(annotator)
        # A parallel send of the same key may have been faster; its row answers this one too.
        earlier, latest = said_before(assignment, annotator, idempotency_key, body)
        if earlier is not None:
            return earlier
        answer_late(assignment, annotator)
        return stored(latest)


def body_digest(*said: Any, strength: int | None, details: Mapping[str, Any] | None) -> str:
    """SHA-256 of what was sent under a key; what the form asks beside it counts where said."""
    more = [] if strength is None and not details else [strength, details or {}]
    return sha256(canonical_json([*said, *more]))


def words_for(assignment: Assignment, answer: str) -> dict[str, str]:
    """A judgment's `answer` and `label` for what the screen sent.

    Raises AnnotateError for what the version that was on the screen does not offer.
    """
    kind = assignment.comparison.project.kind
    if kind == Project.Kind.RANKINGS:
        if answer != Answer.RANKING:
            raise AnnotateError(
                f'answer {answer[:80]!r} is not "ranking", which this project takes'
            )
        return {"answer": Answer.RANKING, "label": ""}
    if kind != Project.Kind.LABELS:
        if answer not in SCREEN_ANSWERS:
            raise AnnotateError(f"answer {answer!r} is none of {', '.join(SCREEN_ANSWERS)}")
        return {"answer": to_answer(answer, swapped=assignment.swapped), "label": ""}
    names = [label["name"] for label in offered_labels(assignment)]
    if answer not in names:
        raise AnnotateError(f"{answer[:80]!r} is none of this project's labels: {', '.join(names)}")
    return {"answer": Answer.LABEL, "label": answer}


def replies_for(
    assignment: Assignment,
    answer: str,
    *,
    strength: int | None,
    details: Mapping[str, Any],
    rationale: str,
) -> dict[str, Any]:
    """A judgment's `strength` and `details` for what the screen sent beside the answer.

    Raises AnnotateError for what the form on the screen did not ask, or asked otherwise.
    """
    others = {name: value for name, value in details.items() if name != "ranking"}
    comparison = assignment.comparison

    def texts() -> dict[str, str]:
        a, b = comparison.pair
        return {"a": a.text, "b": b.text}

    form = assignment.guideline.form if assignment.guideline is not None else {}
    reply = Reply(form=form, answer=answer, swapped=assignment.swapped, texts=texts)
    how_much, said = checked_reply(reply, strength=strength, details=others, rationale=rationale)
    if answer == Answer.RANKING and comparison.project.kind == Project.Kind.RANKINGS:
        said["ranking"] = checked_ranking(order=assignment.order, ranking=details.get("ranking"))
    elif details.get("ranking"):
        raise AnnotateError("ranking: this project ranks nothing; leave it out")
    return {"strength": how_much, "details": said}


def check_key(key: str) -> None:
    if not key or len(key) > MAX_KEY:
        raise AnnotateError(f"the idempotency key must have 1 to {MAX_KEY} characters")
    problem = text_problem(key, "the idempotency key")
    if problem:
        raise AnnotateError(problem)


def check_offered(project: Project, answer: str) -> None:
    """Raise for an answer that the project does not take, or not now."""
    if project.state != Project.State.OPEN:
        raise ProjectClosed(f"{project} is {project.get_state_display().lower()}; not stored")
    if answer == Answer.TIE and not project.allow_tie:
        raise AnnotateError("this project takes no ties")
    if answer == Answer.BOTH_BAD and not project.allow_both_bad:
        raise AnnotateError('this project does not offer "both bad"')


def said_before(
    assignment: Assignment, annotator: Annotator, key: str, body: str
) -> tuple[Judgment | None, Judgment | None]:
    """(the row stored under the key, this person's last word on the comparison), in one query.

    Of a repeat the last word on the repeat: the first answer has a chain of its own.

    Raises KeyReused where the key was used to say something else.
    """
    rows = Judgment.objects.filter(
        Q(idempotency_key=key) | Q(comparison=assignment.comparison_id), annotator=annotator
    )
    earlier, chain = None, []
    for row in rows:
        if row.idempotency_key == key:
            earlier = row
        if (row.comparison_id, row.is_repeat) == (assignment.comparison_id, assignment.is_repeat):
            chain.append(row)
    if earlier is not None:
        if earlier.body_digest != body:
            raise KeyReused("this idempotency key was used for another answer; nothing was stored")
        earlier.repeated = True
    superseded = {row.supersedes_id for row in chain}
    return earlier, next((row for row in chain if row.pk not in superseded), None)


def lease_in_hand(*, pk: int, annotator: int) -> QuerySet[Assignment]:
    return Assignment.objects.filter(pk=pk, annotator=annotator, state=State.LEASED)


LEASE_ANSWERED = PreparedUpdate(lease_in_hand, state=State.JUDGED)


def answered(assignment: Assignment, annotator: Annotator) -> bool:
    """Turn the lease into a judged assignment, which keeps its place; False where it has ended."""
    return bool(LEASE_ANSWERED.run(pk=assignment.pk, annotator=annotator.pk))


def answer_late(assignment: Assignment, annotator: Annotator) -> None:
    """Take a place for an answer whose lease has ended: welcome while somebody is still wanted.

    Raises LeaseLost.
    """
    # All of them: another window may answer the lease that this person got after this one.
    rows = Assignment.objects.select_for_update(no_key=True).filter(
        comparison=assignment.comparison_id, annotator=annotator, is_repeat=assignment.is_repeat
    )
    theirs = {row.pk: row for row in rows.order_by("pk")}
    locked = theirs.pop(assignment.pk, None)
    if locked is None or locked.state in (State.JUDGED, State.SKIPPED):
        raise LeaseLost("this comparison is no longer yours; the next one is")
    if any(other.state in (State.JUDGED, State.SKIPPED) for other in theirs.values()):
        raise LeaseLost("you have answered or skipped this comparison in another window")
    # Leased to the same person once more: that lease's place becomes this answer's.
    has_place = locked.is_repeat or locked.state == State.LEASED
    has_place |= bool(
        Assignment.objects.filter(pk__in=theirs, state=State.LEASED).update(state=State.EXPIRED)
    )
    comparison = Comparison.objects.filter(pk=locked.comparison_id, slots__gt=0)
    if not has_place and not comparison.update(slots=F("slots") - 1):
        raise LeaseLost("your time for this one had run out and others have answered it")
    Assignment.objects.filter(pk=locked.pk).update(state=State.JUDGED)


@transaction.atomic
def undo_judgment(
    *, project: Project, annotator: Annotator, idempotency_key: str, expected: int | None = None
) -> Assignment:
    """Take back this person's last judgment here, if it is younger than ten minutes.

    The comparison is theirs again at once. What else was on their screen goes back to the queue.
    Raises NothingToUndo; also where the last judgment is not that of the `expected` assignment, so
    that an undo sent late takes back nothing else. The same key twice takes back one judgment.
    """
    check_key(idempotency_key)
    lock_person(annotator)
    again = (
        Judgment.objects.filter(annotator=annotator, idempotency_key=idempotency_key)
        .select_related("assignment")
        .first()
    )
    if again is not None:
        if again.answer != Answer.WITHDRAWN or again.assignment is None:
            raise KeyReused("this idempotency key was used for an answer; nothing was taken back")
        return again.assignment
    last = (
        Judgment.objects.standing()
        .filter(
            annotator=annotator,
            comparison__project=project,
            comparison__group=None,
            assignment__state=State.JUDGED,
            created_at__gt=timezone.now() - UNDO_WINDOW,
        )
        .select_related("assignment")
        .order_by("-pk")
        .first()
    )
    if last is None or last.assignment is None:
        raise NothingToUndo("there is nothing to take back: judgments can be undone for 10 minutes")
    if expected is not None and last.assignment.pk != expected:
        raise NothingToUndo("that judgment is not your last one here, so it was left as it is")
    held = Assignment.objects.filter(
        annotator=annotator,
        comparison__project=project,
        state=State.LEASED,
        shown_at__isnull=False,
    ).order_by("comparison_id")
    for pk, comparison_id in held.values_list("pk", "comparison_id"):
        release(assignment_id=pk, comparison_id=comparison_id, to=State.EXPIRED)
    # The place stays taken: judged before, leased from now.
    Assignment.objects.filter(pk=last.assignment.pk).update(
        state=State.LEASED, expires_at=from_now(project.lease_s)
    )
    withdrawal = Judgment.objects.create(
        workspace_id=last.workspace_id,
        comparison_id=last.comparison_id,
        annotator=annotator,
        assignment=last.assignment,
        is_repeat=last.is_repeat,
        guideline_id=last.guideline_id,
        answer=Answer.WITHDRAWN,
        swapped=last.swapped,
        idempotency_key=idempotency_key,
        body_digest=sha256("undo"),
        supersedes=last,
    )
    if last.answer == Answer.RANKING:
        store_pair_judgments(withdrawal)
    last.assignment.refresh_from_db()
    return last.assignment
