"""Which comparison a person sees once more, sides swapped, so that their consistency is known.

A repeat looks like any other comparison and comes at random, so that nobody can count on it
(docs/decisions/0011-swapped-repeats.md).
"""

from __future__ import annotations

import secrets

from django.db.models import Exists, OuterRef, Q

from annotate.models import Annotator, Assignment, Judgment, Project
from annotate.services.searching import leases_of, waiting

State = Assignment.State


def repeat_is_due(project: Project) -> bool:
    """Whether the next comparison is to be a repeat: drawn, one in `repeat_every` on average."""
    return project.repeat_every is not None and secrets.randbelow(project.repeat_every) == 0


def repeat_for(*, project: Project, annotator: Annotator, ahead: bool) -> Judgment | None:
    """The judgment to be said once more: drawn from this person's that others have followed.

    Where nothing else is open to them there is no repeat either, so that a queue that is done stays
    done. Unless it is leased `ahead`, none while the person has a lease.
    """
    if not ahead and leases_of(project=project, annotator=annotator).exists():
        return None
    theirs = Judgment.objects.standing().filter(
        annotator=annotator, comparison__project=project, assignment__isnull=False
    )
    newest = theirs.order_by("-pk").values_list("pk", flat=True)
    after = newest[project.repeat_after - 1 : project.repeat_after].first()
    if after is None or not waiting(project=project, annotator=annotator, limit=1):
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
