"""Where a person's search of the queue begins, so that it does not grow with what they have judged.

The queue has one order for everybody. Whoever is ahead of the others would step over all they have
judged and others are still wanted for; instead their search begins at a remembered place. Nothing
depends on it but time: where nothing is found behind the place, the search is made from the start
once more, which finds what was freed or passed over meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import F, QuerySet, Subquery

from annotate.models import Annotator, Comparison, Participation, Project

#: The place is remembered about once in so many servings: a statement saved in the others, for
#: stepping over at most a few dozen rows.
REMEMBER_EVERY = 32


def stretches(
    open_ones: QuerySet[Comparison], place: tuple[int, int] | None
) -> Iterator[QuerySet[Comparison]]:
    """The open comparisons in the parts in which to look for the first, each one range of an index.

    place: (priority, random key) at which the search begins.
    """
    if place is not None:
        priority, key = place
        yield open_ones.filter(priority=priority, random_key__gte=key)
        yield open_ones.filter(priority__lt=priority)
    yield open_ones


def remember_place(*, annotator: Annotator, comparison: Comparison) -> None:
    """Begin at this comparison from now on; at most of every few dozen servings."""
    if comparison.random_key % REMEMBER_EVERY == 0:
        Participation.objects.update_or_create(
            annotator=annotator,
            project_id=comparison.project_id,
            defaults={
                "search_priority": comparison.priority,
                "search_key": comparison.random_key,
                "workspace_id": comparison.workspace_id,
            },
        )


def search_from_start(project: Project) -> None:
    """After an import: what is new may come before everybody's place."""
    places = Participation.objects.filter(project=project, search_priority__isnull=False)
    places.update(search_priority=None, search_key=None)


def search_again_for(comparison_id: int) -> None:
    """After a place of it became free: those who search among less urgent ones shall find it."""
    freed = Comparison.objects.filter(pk=comparison_id)
    Participation.objects.filter(
        project=Subquery(freed.values("project")[:1]),
        search_priority__lt=Subquery(freed.values("priority")[:1]),
    ).update(search_priority=None, search_key=None)


def place_of(row: object) -> tuple[int, int] | None:
    """A place from a row that holds both columns."""
    priority, key = getattr(row, "search_priority", None), getattr(row, "search_key", None)
    return None if priority is None or key is None else (priority, key)


#: What a statement about a person reads of their part in a project, behind a `part` relation.
PART_COLUMNS = {
    name: F(f"part__{name}")
    for name in ("named", "quota", "consent_version", "search_priority", "search_key")
}
