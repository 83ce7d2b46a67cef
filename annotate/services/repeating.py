"""Which comparison a person sees once more, sides swapped, so that their consistency is known.

A repeat looks like any other comparison and comes at random, so that nobody can count on it
(docs/decisions/0011-swapped-repeats.md).
"""

from __future__ import annotations

import secrets

from django.db.models import Exists, OuterRef, Q, QuerySet

from annotate.models import Annotator, Assignment, Comparison, Judgment, Project

State = Assignment.State


def repeat_is_due(project: Project) -> bool:
    """Whether the next comparison is to be a repeat: drawn, one in `repeat_every` on average."""
    return project.repeat_every is not None and secrets.randbelow(project.repeat_every) == 0


def repeat_for(
    *, project: Project, annotator: Annotator, open_ones: QuerySet[Comparison]
) -> Judgment | None:
    """The judgment to be said once more: drawn from this person's that others have followed.

    open_ones: what else they could be served. Where that is nothing there is no repeat either, so
    that a queue that is done stays done.
    """
    theirs = Judgment.objects.standing().filter(
        annotator=annotator, comparison__project=project, assignment__isnull=False
    )
    newest = theirs.order_by("-pk").values_list("pk", flat=True)
    after = newest[project.repeat_after - 1 : project.repeat_after].first()
    if after is None or not open_ones.exists():
        return None
    repeated = Assignment.objects.filter(
        comparison=OuterRef("comparison"),
        annotator=annotator,
        is_repeat=True,
        state__in=[State.LEASED, State.JUDGED, State.SKIPPED],
    )
    return (
        theirs.filter(
            ~Exists(repeated),
            Q(comparison__reserved_for=None) | Q(comparison__reserved_for=annotator),
            pk__lt=after,
            is_repeat=False,
        )
        .exclude(details__has_key="known_model")
        .exclude(comparison__prompt__topics__name__in=annotator.avoids)
        .order_by("?")
        .first()
    )
