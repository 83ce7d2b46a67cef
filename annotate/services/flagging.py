"""Flags: an annotator says what is wrong with a comparison, an admin says that it is dealt with."""

from __future__ import annotations

from django.utils import timezone

from annotate.errors import AnnotateError
from annotate.formats.canonical import text_problem
from annotate.models import Annotator, Assignment, Flag
from annotate.services.walls import check_one_workspace
from rlhf_platform.accounts.models import User

MAX_NOTE = 2000


def flag_comparison(
    *, assignment: Assignment, annotator: Annotator, kind: str, note: str = ""
) -> Flag:
    """Tell the admins about a comparison that this person was given.

    The same kind again is the same flag, with the latest note; another note opens it again. Raises
    AnnotateError.
    """
    check_one_workspace(assignment, annotator)
    if assignment.annotator_id != annotator.pk:
        raise AnnotateError("this comparison was not given to you")
    if kind not in Flag.Kind.values:
        raise AnnotateError(f"kind {kind[:40]!r} is none of {', '.join(Flag.Kind.values)}")
    if len(note) > MAX_NOTE:
        raise AnnotateError(f"the note is longer than {MAX_NOTE} characters")
    problem = text_problem(note, "the note")
    if problem:
        raise AnnotateError(problem)
    flag, made = Flag.objects.get_or_create(
        comparison_id=assignment.comparison_id,
        annotator=annotator,
        kind=kind,
        defaults={"workspace_id": assignment.workspace_id, "note": note},
    )
    if not made and note not in ("", flag.note):
        flag.note, flag.settled_at, flag.settled_by = note, None, None
        flag.save(update_fields=["note", "settled_at", "settled_by"])
    return flag


def settle_flag(*, flag: Flag, actor: User) -> Flag:
    """Note that an admin has dealt with a flag; the first one stands."""
    Flag.objects.filter(pk=flag.pk, settled_at__isnull=True).update(
        settled_at=timezone.now(), settled_by=actor
    )
    flag.refresh_from_db()
    return flag
