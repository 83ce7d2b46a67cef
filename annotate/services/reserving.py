"""Keeping a comparison for one person."""

from __future__ import annotations

from django.db import transaction

from annotate.errors import AnnotateError
from annotate.models import Annotator, Assignment, Comparison, Judgment
from annotate.services.searching import search_from_start
from annotate.services.walls import check_one_workspace


@transaction.atomic
def reserve_comparison(*, comparison: Comparison, annotator: Annotator | None) -> None:
    """Nobody else is served it from now on; with None everybody is again.

    What others hold of it stays theirs. Raises AnnotateError for what is never served, and for
    somebody who answered or skipped it.
    """
    if comparison.group_id is not None:
        raise AnnotateError("a pair of a ranking is never served; reserve the ranking")
    if annotator is not None:
        check_one_workspace(comparison, annotator)
        done = Assignment.objects.filter(
            comparison=comparison,
            annotator=annotator,
            state__in=[Assignment.State.JUDGED, Assignment.State.SKIPPED],
        )
        said = Judgment.objects.current().filter(comparison=comparison, annotator=annotator)
        if done.exists() or said.exists():
            raise AnnotateError(f"{annotator} has answered or skipped it already")
    Comparison.objects.filter(pk=comparison.pk).update(reserved_for=annotator)
    comparison.reserved_for = annotator
    # Some have passed over it for ever, as far as they know.
    search_from_start(comparison.project)
