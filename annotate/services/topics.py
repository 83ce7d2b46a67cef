"""Topics of prompts: named by imports and by people, avoided by those who asked for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction

from annotate.errors import AnnotateError
from annotate.formats.records import Unusable
from annotate.formats.topics import MAX_TOPICS, clean_topics
from annotate.models import Annotator, Assignment, Prompt, PromptTopic
from annotate.services.answers import CHUNK
from annotate.services.serving import release
from rlhf_platform.accounts.models import Workspace


def checked_topics(topics: Any, *, most: int = MAX_TOPICS) -> list[str]:
    """Raises AnnotateError for what is no list of a few short names."""
    try:
        return clean_topics(topics, "topics", most=most)
    except Unusable as reason:
        raise AnnotateError(str(reason)) from None


def store_topics(*, workspace: Workspace, named: Iterable[tuple[Prompt, list[str]]]) -> None:
    """Add what an import says of its prompts; what is there stays."""
    wanted = {(prompt.pk, name) for prompt, names in named for name in names}
    if not wanted:
        return
    PromptTopic.objects.bulk_create(
        [PromptTopic(prompt_id=prompt, name=name) for prompt, name in sorted(wanted)],
        ignore_conflicts=True,
        batch_size=CHUNK,
    )
    for annotator in Annotator.objects.filter(workspace=workspace).exclude(avoids=[]):
        release_avoided(annotator)


@transaction.atomic
def set_topics(*, prompt: Prompt, topics: Any) -> list[str]:
    """These are a prompt's topics, and no others. Raises AnnotateError."""
    names = checked_topics(topics)
    prompt.topics.exclude(name__in=names).delete()
    store_topics(workspace=prompt.workspace, named=[(prompt, names)])
    return names


def release_avoided(annotator: Annotator) -> None:
    """Take back what a person holds, or has waiting, about a topic that they asked not to see."""
    held = Assignment.objects.filter(
        annotator=annotator,
        state=Assignment.State.LEASED,
        comparison__prompt__topics__name__in=annotator.avoids,
    ).order_by("comparison_id")
    for pk, comparison in held.values_list("pk", "comparison_id").distinct():
        release(assignment_id=pk, comparison_id=comparison, to=Assignment.State.EXPIRED)
