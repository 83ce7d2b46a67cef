"""The way in: preference files, prompt files, and single prompts, responses and comparisons.

Everything is told apart by its content, so that doing the same again changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import transaction

from annotate.errors import AnnotateError, BadRow, ImportRefused
from annotate.formats.canonical import comparison_digest, messages_digest, sha256
from annotate.formats.preferences import read_preferences
from annotate.formats.prompts import PromptFile, read_prompts
from annotate.formats.records import Message, RowRefused, checked_prompt, checked_text
from annotate.models import (
    Comparison,
    Project,
    Prompt,
    PromptSet,
    PromptSetEntry,
    Response,
    ResponseOrigin,
)
from annotate.services.importing import plan_pairs, store_pairs
from annotate.services.projects import check_slug
from annotate.services.storing import CHUNK, store_prompts
from rlhf_platform.accounts.models import User, Workspace

#: Refused rows named in the message itself; all of them are in `ImportRefused.bad_rows`.
NAMED_ROWS = 10


@dataclass(frozen=True)
class ImportReport:
    """What an import changed, and the rows it did not take."""

    comparisons_new: int
    comparisons_seen: int
    judgments_new: int
    judgments_seen: int
    #: Rows that are not what the format promises (only with `skip_bad`, else the file is refused).
    bad_rows: list[BadRow] = field(default_factory=list)
    #: Sound rows with nothing to store: equal responses, contradictions of an earlier answer.
    left_out: list[BadRow] = field(default_factory=list)
    format: str = ""
    #: Rows taken; more than the comparisons where a file holds a pair more than once.
    rows: int = 0


def import_comparisons(
    *, project: Project, path: Path | str, format: str = "auto", skip_bad: bool = False
) -> ImportReport:
    """Store a preference file's pairs and judgments: all of them or none.

    With `skip_bad` the rows that are not sound are left and listed instead of refusing the file.
    """
    source = read_preferences(path, format)
    if source.bad_rows and not skip_bad:
        raise _refusal(path, source.bad_rows, source.n_rows)
    if not source.records:
        rows = source.bad_rows + source.left_out
        raise ImportRefused(
            f"{path}: none of its {len(rows):,} rows can be imported; {rows[0]}", rows
        )
    pairs, contradictions = plan_pairs(source.records)
    with transaction.atomic():
        # One import into a project at a time: the counts and the open places are then exact.
        locked = Project.objects.select_for_update().get(pk=project.pk)
        stored = store_pairs(project=locked, pairs=pairs, reference=source.format.REFERENCE)
    left_out = source.left_out + contradictions + stored.contradictions
    return ImportReport(
        comparisons_new=stored.comparisons_new,
        comparisons_seen=stored.comparisons_seen,
        judgments_new=stored.judgments_new,
        judgments_seen=stored.judgments_seen,
        bad_rows=source.bad_rows,
        left_out=sorted(left_out, key=lambda row: row.line),
        format=source.format.NAME,
        rows=len(source.records),
    )


def import_prompts(
    *, workspace: Workspace, path: Path | str, name: str, use: str, skip_bad: bool = False
) -> PromptSet:
    """The prompts of a file as a set; a new version of `name` only when list or use differ."""
    source = prompts_in(path=path, skip_bad=skip_bad)
    return store_prompt_set(
        workspace=workspace, conversations=source.conversations, name=name, use=use
    )


def prompts_in(*, path: Path | str, skip_bad: bool = False) -> PromptFile:
    """A prompt file's rows, refused as a whole where one is not sound, unless `skip_bad`."""
    source = read_prompts(path)
    if source.bad_rows and not skip_bad:
        raise _refusal(path, source.bad_rows, len(source.bad_rows) + len(source.records))
    if not source.records:
        reason = f"; {source.bad_rows[0]}" if source.bad_rows else ""
        raise ImportRefused(f"{path} holds no prompts{reason}", source.bad_rows)
    return source


@transaction.atomic
def store_prompt_set(
    *, workspace: Workspace, conversations: Sequence[list[Message]], name: str, use: str
) -> PromptSet:
    """A prompt set of these prompts in this order, each once."""
    check_slug(name, "prompt set")
    if use not in PromptSet.Use.values:
        raise AnnotateError(f"{use!r} is not a use of prompts; say one of {_uses()}.")
    # The workspace's lock: two imports under one name must not both become the next version.
    Workspace.objects.select_for_update().get(pk=workspace.pk)
    digests = list(dict.fromkeys(messages_digest(messages) for messages in conversations))
    latest = PromptSet.objects.filter(workspace=workspace, name=name).order_by("-version").first()
    if latest and latest.use == use:
        entries = latest.entries.order_by("position")
        if list(entries.values_list("prompt__digest", flat=True)) == digests:
            return latest
    ids = store_prompts(workspace=workspace, conversations=conversations)
    prompt_set = PromptSet.objects.create(
        workspace=workspace, name=name, version=latest.version + 1 if latest else 1, use=use
    )
    PromptSetEntry.objects.bulk_create(
        [
            PromptSetEntry(prompt_set=prompt_set, prompt_id=ids[digest], position=position)
            for position, digest in enumerate(digests)
        ],
        batch_size=CHUNK,
    )
    return prompt_set


def store_prompt(*, workspace: Workspace, messages: list[Message]) -> Prompt:
    try:
        checked = checked_prompt(messages)
    except RowRefused as error:
        raise ImportRefused(f"The prompt cannot be stored: {error}.") from None
    return Prompt.objects.get_or_create(
        workspace=workspace, digest=messages_digest(checked), defaults={"messages": checked}
    )[0]


@transaction.atomic
def store_response(
    *,
    prompt: Prompt,
    text: str,
    kind: str,
    reference: str,
    details: dict[str, Any] | None = None,
    author: User | None = None,
) -> Response:
    """The response with this text, and this origin of it; both made only where they are missing."""
    try:
        checked_text(text, "its text")
    except RowRefused as error:
        raise ImportRefused(f"The response cannot be stored: {error}.") from None
    response, _ = Response.objects.get_or_create(
        workspace_id=prompt.workspace_id,
        prompt=prompt,
        digest=sha256(text),
        defaults={"text": text},
    )
    ResponseOrigin.objects.get_or_create(
        response=response,
        kind=kind,
        reference=reference,
        defaults={"details": details or {}, "author": author},
    )
    return response


def open_comparison(
    *,
    project: Project,
    first: Response,
    second: Response,
    origin: str,
    origin_reference: str = "",
    propensity: float | None = None,
    priority: int = 0,
) -> Comparison | None:
    """The comparison of two responses in a project, opened if it was not there.

    `None` when both are the same text. A is the response whose digest sorts first, so that the
    order they are given in (old before new, say) tells an annotator nothing.
    """
    if first.prompt_id != second.prompt_id or not (
        project.workspace_id == first.workspace_id == second.workspace_id
    ):
        raise AnnotateError("Only two responses to one prompt of the project's workspace compare.")
    if first.digest == second.digest:
        return None
    a, b = sorted((first, second), key=lambda response: response.digest)
    return Comparison.objects.get_or_create(
        project=project,
        digest=comparison_digest(first.prompt.digest, [a.digest, b.digest]),
        defaults={
            "workspace_id": project.workspace_id,
            "prompt_id": first.prompt_id,
            "response_a": a,
            "response_b": b,
            "origin": origin,
            "origin_reference": origin_reference,
            "propensity": propensity,
            "priority": priority,
            "slots": project.overlap,
        },
    )[0]


def _refusal(path: Path | str, bad_rows: list[BadRow], n_rows: int) -> ImportRefused:
    named = "\n".join(f"  {row}" for row in bad_rows[:NAMED_ROWS])
    more = len(bad_rows) - NAMED_ROWS
    return ImportRefused(
        f"{path}: {len(bad_rows):,} of {n_rows:,} rows cannot be imported, so nothing was stored:\n"
        f"{named}{f'{chr(10)}  and {more:,} more' if more > 0 else ''}\n"
        "Correct them, or import the rest and have these listed with --skip-bad.",
        bad_rows,
    )


def _uses() -> str:
    return ", ".join(PromptSet.Use.values)
