"""The search of the queue for what a person may judge next, and where it begins.

The queue has one order for everybody. Whoever is ahead of the others would step over all they have
judged and others are still wanted for; instead their search begins at a remembered place. Nothing
depends on it but time: where nothing is found behind the place, the search is made from the start
once more, which finds what was freed or passed over meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models import (
    DateTimeField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    TextField,
    Value,
)
from django.db.models.functions import Concat, Now, StrIndex
from django.db.models.lookups import IsNull

from annotate.models import (
    Annotator,
    Assignment,
    Candidate,
    Comparison,
    Guideline,
    Judgment,
    Participation,
    Project,
    PromptTopic,
)
from annotate.models.comparisons import ResponseOrigin
from rlhf_platform.prepared import Prepared

State = Assignment.State

#: The place is remembered about once in so many servings: a statement saved in the others, for
#: stepping over at most a few dozen rows.
REMEMBER_EVERY = 32


#: What a screen needs of a guideline, read with the comparison; its text is read where it is shown.
GUIDELINE_COLUMNS = ("id", "project_id", "version", "labels", "form")


def from_now(seconds: float) -> ExpressionWrapper:
    """When a lease of that length taken now ends, by the database's clock."""
    return ExpressionWrapper(Now() + timedelta(seconds=seconds), output_field=DateTimeField())


def leases_of(*, project: Project | int, annotator: Annotator | int) -> QuerySet[Assignment]:
    """The leases of this person in this project that still run."""
    return Assignment.objects.filter(
        comparison__project=project,
        annotator=annotator,
        state=State.LEASED,
        expires_at__gt=Now(),
    )


def open_for(
    *, project: int, annotator: int, author: int | None, rankings: bool, avoided: str | None
) -> QuerySet[Comparison]:
    """Comparisons with a free place that this person may judge, in serving order.

    All by key. `author` is the person's user if any response is theirs: nobody judges their own.
    `avoided`: what `avoided_by` gives.

    What they may not judge is looked up row by row, each through an index, as `(SELECT …) IS NULL`.
    A NOT EXISTS would become a join, for which PostgreSQL without fresh statistics reads all that
    the person has ever done once for every open comparison.
    """
    held = Assignment.objects.filter(
        comparison=OuterRef("pk"),
        annotator=annotator,
        state__in=[State.LEASED, State.JUDGED, State.SKIPPED],
        is_repeat=False,
    )
    # Whoever took their answer back and let the lease run out may be asked again.
    judged = Judgment.objects.current().filter(comparison=OuterRef("pk"), annotator=annotator)
    reasons: list[QuerySet[Any]] = [held, judged]
    if avoided is not None:
        named = Concat(Value("\n"), F("name"), Value("\n"))
        found = StrIndex(Value(avoided, TextField()), named)
        reasons.append(
            PromptTopic.objects.filter(prompt=OuterRef("prompt")).alias(at=found).filter(at__gt=0)
        )
    if author is not None:
        own = ResponseOrigin.objects.filter(author=author)
        reasons += [own.filter(response=OuterRef(side)) for side in ("response_a", "response_b")]
        if rankings:
            ranked = Candidate.objects.filter(comparison=OuterRef("pk"))
            reasons.append(ranked.filter(response__origins__author=author))
    open_ones = Comparison.objects.filter(
        Q(reserved_for=None) | Q(reserved_for=annotator), project=project, slots__gt=0
    )
    for reason in reasons:
        open_ones = open_ones.filter(IsNull(Subquery(reason.values("pk")[:1]), True))
    return open_ones.order_by(F("priority").desc(), "random_key")


def avoided_by(annotator: Annotator) -> str | None:
    """The topics a person avoids as one text, each on a line with an end before and behind it.

    A list would give the statement another shape for every length.
    """
    return "\n".join(["", *annotator.avoids, ""]) if annotator.avoids else None


#: The parts of the queue in which to look for the first, each one range of an index: from the
#: place on, less urgent than it, all.
HERE, BELOW, ALL = "here", "below", "all"


def stretch(open_ones: QuerySet[Comparison], part: str, *, priority: int = 0, key: int = 0) -> Any:
    """The open comparisons in that part of the queue."""
    if part == HERE:
        return open_ones.filter(priority=priority, random_key__gte=key)
    return open_ones.filter(priority__lt=priority) if part == BELOW else open_ones


def to_serve(
    part: str, lease_s: int, rankings: bool, ahead: bool, wait: bool, **values: Any
) -> QuerySet[Comparison]:
    """The first open comparison of a part, locked, with what its lease and its screen need.

    Unless it is leased `ahead`, none while the person has a lease. Passes over what others hold,
    unless it is to `wait` for it.
    """
    project, annotator = values["project"], values["annotator"]
    open_ones = open_for(
        project=project,
        annotator=annotator,
        author=values.get("author"),
        rankings=rankings,
        avoided=values.get("avoided"),
    )
    if not ahead:
        open_ones = open_ones.filter(~Exists(leases_of(project=project, annotator=annotator)))
    place = {name: values[name] for name in ("priority", "key") if name in values}
    newest = Guideline.objects.filter(project=project).order_by("-version")
    before = Assignment.objects.filter(annotator=annotator).order_by("-pk")
    rows = stretch(open_ones, part, **place).annotate(
        lease_ends=from_now(lease_s),
        sides_before=Subquery(before.values("sides_ahead")[:1]),
        **{f"guideline_{name}": Subquery(newest.values(name)[:1]) for name in GUIDELINE_COLUMNS},
    )
    if connection.features.has_select_for_update_skip_locked:
        rows = rows.select_for_update(skip_locked=not wait, of=("self",), no_key=True)
    served: QuerySet[Comparison] = rows.select_related("prompt", "response_a", "response_b")[:1]
    return served


TO_SERVE = Prepared(to_serve)


def parts_of(place: tuple[int, int] | None) -> Iterator[tuple[str, dict[str, int]]]:
    """The parts to search, in order, and what each needs of the place: (priority, random key)."""
    if place is not None:
        priority, key = place
        yield HERE, {"priority": priority, "key": key}
        yield BELOW, {"priority": priority}
    yield ALL, {}


def first_open(
    *, project: Project, annotator: Annotator, look: Any, lease_s: int, ahead: bool
) -> Any:
    """The first comparison that is free for the person, locked; None where nothing is.

    Within a transaction that holds the person's lock; look: what `look_up` gave.
    Any: it has columns that are not fields of the model.
    """
    values: dict[str, int | str] = {"project": project.pk, "annotator": annotator.pk}
    avoided = avoided_by(annotator)
    if avoided is not None:
        values["avoided"] = avoided
    if look.writes and annotator.user_id is not None:
        values["author"] = annotator.user_id
    # A place of a comparison with several may still be free when whoever locks it is done.
    waits = (False, True) if connection.features.has_select_for_update_skip_locked else (False,)
    rankings = project.kind == Project.Kind.RANKINGS
    for part, place in parts_of(place_of(look)):
        for wait in waits:
            found = TO_SERVE.first(part, lease_s, rankings, ahead, wait, **values, **place)
            if found is not None:
                return found
    return None


def waiting(*, project: Project, annotator: Annotator, limit: int) -> int:
    """How many comparisons wait for this person, counted up to a bound.

    Counted from their place first: from the start it steps over all they have judged.
    """
    open_ones = open_for(
        project=project.pk,
        annotator=annotator.pk,
        author=annotator.user_id,
        rankings=project.kind == Project.Kind.RANKINGS,
        avoided=avoided_by(annotator),
    ).order_by()
    place = place_of(Participation.objects.filter(project=project, annotator=annotator).first())
    count = 0
    for part, values in parts_of(place):
        count = stretch(open_ones, part, **values)[:limit].count()
        if count == limit:
            break
    return count


def remember_place(*, annotator: Annotator, comparison: Comparison) -> None:
    """Begin at this comparison from now on; at most of every few dozen servings."""
    if comparison.random_key % REMEMBER_EVERY == 0:
        Participation.objects.bulk_create(
            [
                Participation(
                    workspace_id=comparison.workspace_id,
                    project_id=comparison.project_id,
                    annotator=annotator,
                    search_priority=comparison.priority,
                    search_key=comparison.random_key,
                )
            ],
            update_conflicts=True,
            unique_fields=["annotator", "project"],
            update_fields=["search_priority", "search_key"],
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
