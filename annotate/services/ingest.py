"""The only way in for prompts, responses and comparisons, from files and from models alike.

Everything is addressed by digest, so storing twice changes nothing. Files are stored as a whole or
not at all; bulk inserts ignore what is there already and read it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import transaction

from annotate.errors import AnnotateError, BadRow, ImportRefused
from annotate.formats.canonical import (
    Messages,
    asks_nothing,
    canonical_json,
    messages_problem,
    pair_digest,
    sha256,
    text_problem,
)
from annotate.formats.prompts import PromptRecord, read_prompts
from annotate.formats.reading import read_pairs
from annotate.formats.records import PairRecord
from annotate.models import (
    Comparison,
    Project,
    Prompt,
    PromptSet,
    PromptSetEntry,
    Response,
    ResponseOrigin,
)
from annotate.services.answers import CHUNK, chunks, gather_answers, store_judgments, take_slots
from annotate.services.labels import require_kind
from annotate.services.projects import check_slug
from annotate.services.searching import search_from_start
from annotate.services.topics import store_topics
from annotate.services.walls import check_one_workspace
from rlhf_platform.accounts.models import User, Workspace

#: Refused rows that a message spells out.
SHOWN = 20


@dataclass(frozen=True)
class ImportReport:
    """What an import stored, what was there before, and which rows it left out.

    `contradictions` are rows in which somebody answers a pair otherwise than before: the earlier
    answer stands.
    """

    comparisons_new: int = 0
    comparisons_seen: int = 0
    judgments_new: int = 0
    judgments_seen: int = 0
    bad_rows: list[BadRow] = field(default_factory=list)
    contradictions: list[BadRow] = field(default_factory=list)


def refuse_or_skip(path: Path, bad: list[BadRow], *, good: int, skip_bad: bool) -> None:
    """Raise ImportRefused unless bad rows may be left out (and something good remains)."""
    if bad and (not skip_bad or not good):
        shown = "\n".join(f"  {row}" for row in bad[:SHOWN])
        more = f"\n  … and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        advice = "; --skip-bad imports the rest" if good and not skip_bad else ""
        raise ImportRefused(
            f"{path}: {len(bad)} of {len(bad) + good} rows cannot be used, so nothing was "
            f"imported{advice}\n{shown}{more}",
            bad,
        )


def import_comparisons(
    *, project: Project, path: Path, format: str = "auto", skip_bad: bool = False
) -> ImportReport:
    """Store a file's pairs and judgments in `project`.

    Raises NotFound for a missing file and ImportRefused, with line numbers, for anything it cannot
    use; `skip_bad` leaves such rows out and lists them in the report. Nothing is half-stored.
    """
    require_kind(project, Project.Kind.COMPARISONS)
    records, bad = read_pairs(path, format)
    refuse_or_skip(path, bad, good=len(records), skip_bad=skip_bad)
    return store_pairs(project=project, records=records, bad_rows=bad)


@transaction.atomic
def store_pairs(
    *, project: Project, records: Sequence[PairRecord], bad_rows: list[BadRow] | None = None
) -> ImportReport:
    """Store read pairs with their judgments; what is there already is left as it is."""
    # Two imports into one project take turns: each then knows what is new.
    project = with_current_overlap(project)
    workspace = project.workspace
    prompts = store_prompts(workspace=workspace, conversations=[r.messages for r in records])
    keyed = [(prompts[sha256(canonical_json(r.messages))], r) for r in records]
    store_topics(workspace=workspace, named=[(prompt, r.topics) for prompt, r in keyed])
    responses = store_responses(
        workspace=workspace,
        texts=[(prompt, text) for prompt, r in keyed for text in (r.first, r.second)],
    )
    store_origins(
        [
            (responses[prompt.pk, sha256(text)], r.reference)
            for prompt, r in keyed
            for text in (r.first, r.second)
        ]
    )
    wanted: dict[str, Comparison] = {}
    for prompt, record in keyed:
        pair = [responses[prompt.pk, sha256(text)] for text in (record.first, record.second)]
        comparison = new_comparison(
            project=project, prompt=prompt, pair=pair, origin=Comparison.Origin.IMPORT
        )
        wanted.setdefault(comparison.digest, comparison)
    comparisons, new = store_comparisons(project=project, wanted=wanted)
    given, contradictions = gather_answers(keyed, responses, comparisons)
    fresh, seen = store_judgments(
        project=project, given=given, comparisons=comparisons, contradictions=contradictions
    )
    take_slots(fresh)
    return ImportReport(
        comparisons_new=len(new),
        comparisons_seen=len(wanted) - len(new),
        judgments_new=len(fresh),
        judgments_seen=seen,
        bad_rows=bad_rows or [],
        contradictions=sorted(contradictions, key=lambda row: row.line),
    )


def with_current_overlap(project: Project) -> Project:
    """The project as it is now, its overlap unchanged until this transaction ends: a file takes
    minutes to read, and new comparisons must not open with places of an overlap that is gone."""
    return Project.objects.select_for_update(no_key=True).get(pk=project.pk)


def store_prompts(*, workspace: Workspace, conversations: Sequence[Messages]) -> dict[str, Prompt]:
    """The prompts of these conversations by digest, made where they are missing."""
    by_digest = {sha256(canonical_json(messages)): messages for messages in conversations}
    Prompt.objects.bulk_create(
        [Prompt(workspace=workspace, messages=m, digest=d) for d, m in sorted(by_digest.items())],
        ignore_conflicts=True,
        batch_size=CHUNK,
    )
    found = {}
    for part in chunks(list(by_digest)):
        for prompt in Prompt.objects.filter(workspace=workspace, digest__in=part):
            found[prompt.digest] = prompt
    return found


def store_responses(
    *, workspace: Workspace, texts: Sequence[tuple[Prompt, str]]
) -> dict[tuple[int, str], Response]:
    """Responses by (prompt id, text digest), made where they are missing."""
    wanted = {(prompt.pk, sha256(text)): text for prompt, text in texts}
    Response.objects.bulk_create(
        [
            Response(workspace=workspace, prompt_id=prompt_id, text=text, digest=digest)
            for (prompt_id, digest), text in sorted(wanted.items())
        ],
        ignore_conflicts=True,
        batch_size=CHUNK,
    )
    found = {}
    for part in chunks(sorted({prompt_id for prompt_id, _ in wanted})):
        for response in Response.objects.filter(prompt_id__in=part):
            found[response.prompt_id, response.digest] = response
    return found


def store_origins(origins: Sequence[tuple[Response, str]]) -> None:
    ResponseOrigin.objects.bulk_create(
        [
            ResponseOrigin(response=r, kind=ResponseOrigin.Kind.IMPORT, reference=reference)
            for r, reference in dict(sorted(((r.pk, ref), (r, ref)) for r, ref in origins)).values()
        ],
        ignore_conflicts=True,
        batch_size=CHUNK,
    )


def new_comparison(
    *, project: Project, prompt: Prompt, pair: Sequence[Response], origin: str, **fields: Any
) -> Comparison:
    """An unsaved comparison. A is the response with the smaller digest, so that which one a file
    named first (often the chosen one) leaves no trace in the order."""
    first, second = sorted(pair, key=lambda response: response.digest)
    return Comparison(
        workspace=project.workspace,
        project=project,
        prompt=prompt,
        response_a=first,
        response_b=second,
        digest=pair_digest(prompt.digest, [first.digest, second.digest]),
        origin=origin,
        slots=project.overlap,
        **fields,
    )


def store_comparisons(
    *, project: Project, wanted: dict[str, Comparison]
) -> tuple[dict[str, Comparison], set[str]]:
    """(comparisons by digest, digests of those that are new)."""
    existing: set[str] = set()
    for part in chunks(list(wanted)):
        rows = Comparison.objects.filter(project=project, digest__in=part)
        existing |= set(rows.values_list("digest", flat=True))
    Comparison.objects.bulk_create(
        [comparison for digest, comparison in wanted.items() if digest not in existing],
        ignore_conflicts=True,
        batch_size=CHUNK,
    )
    if len(existing) < len(wanted):
        search_from_start(project)
    found = {}
    for part in chunks(list(wanted)):
        for comparison in Comparison.objects.filter(project=project, digest__in=part):
            found[comparison.digest] = comparison
    return found, set(wanted) - existing


def import_prompts(
    *, workspace: Workspace, path: Path, name: str, use: str, skip_bad: bool = False
) -> PromptSet:
    """A prompt set from a file; the set's latest version where the list is the same.

    Raises NotFound or ImportRefused. The same prompt twice in a file stands once.
    """
    records, _ = prompts_in(path=path, skip_bad=skip_bad)
    return store_prompt_records(workspace=workspace, records=records, name=name, use=use)


def prompts_in(*, path: Path, skip_bad: bool = False) -> tuple[list[PromptRecord], list[BadRow]]:
    """(the prompts of a file, the rows left out). Raises NotFound or ImportRefused."""
    records, bad = read_prompts(path)
    refuse_or_skip(path, bad, good=len(records), skip_bad=skip_bad)
    return records, bad


@transaction.atomic
def store_prompt_records(
    *, workspace: Workspace, records: Sequence[PromptRecord], name: str, use: str
) -> PromptSet:
    """`store_prompt_set` of a file's prompts, with their topics."""
    conversations = [record.messages for record in records]
    made = store_prompt_set(workspace=workspace, conversations=conversations, name=name, use=use)
    topics = {sha256(canonical_json(each.messages)): each.topics for each in records if each.topics}
    found = [
        prompt
        for part in chunks(list(topics))
        for prompt in Prompt.objects.filter(workspace=workspace, digest__in=part)
    ]
    store_topics(workspace=workspace, named=[(each, topics[each.digest]) for each in found])
    return made


@transaction.atomic
def store_prompt_set(
    *, workspace: Workspace, conversations: Sequence[Messages], name: str, use: str
) -> PromptSet:
    """The set with these prompts: its latest version where the list is the same, else a new one.

    Raises AnnotateError for an impossible name or use.
    """
    check_slug(name, "prompt set")
    if use not in PromptSet.Use.values:
        raise AnnotateError(f"use {use!r} is none of {', '.join(PromptSet.Use.values)}")
    # Two imports into one workspace take turns: they would draw the same version.
    Workspace.objects.select_for_update(no_key=True).get(pk=workspace.pk)
    prompts = store_prompts(workspace=workspace, conversations=conversations)
    order = list(dict.fromkeys(sha256(canonical_json(messages)) for messages in conversations))
    latest = PromptSet.objects.filter(workspace=workspace, name=name).order_by("-version").first()
    if latest is not None and latest.use == use:
        stored = list(latest.entries.values_list("prompt__digest", flat=True))
        if stored == order:
            return latest
    prompt_set = PromptSet.objects.create(
        workspace=workspace, name=name, use=use, version=latest.version + 1 if latest else 1
    )
    PromptSetEntry.objects.bulk_create(
        [
            PromptSetEntry(prompt_set=prompt_set, prompt=prompts[digest], position=position)
            for position, digest in enumerate(order)
        ],
        batch_size=CHUNK,
    )
    return prompt_set


def store_prompt(*, workspace: Workspace, messages: Messages) -> Prompt:
    """One prompt, made where it is missing. Raises ImportRefused for what asks nothing."""
    problem = messages_problem(messages, "the prompt") or asks_nothing(messages, "the prompt")
    if problem:
        raise ImportRefused(f"the prompt cannot be stored: {problem}")
    return next(iter(store_prompts(workspace=workspace, conversations=[messages]).values()))


def store_response(
    *,
    prompt: Prompt,
    text: str,
    kind: str,
    reference: str,
    details: dict[str, Any] | None = None,
    author: User | None = None,
) -> Response:
    """One response with one origin; an equal text gets another origin, not another response.

    Raises ImportRefused for what a database cannot hold as text.
    """
    problem = text_problem(text, "its text")
    if problem:
        raise ImportRefused(f"the response cannot be stored: {problem}")
    response, _ = Response.objects.get_or_create(
        prompt=prompt,
        digest=sha256(text),
        defaults={"workspace": prompt.workspace, "text": text},
    )
    ResponseOrigin.objects.get_or_create(
        response=response,
        kind=kind,
        reference=reference,
        defaults={"details": details or {}, "author": author},
    )
    return response


@transaction.atomic
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
    """The comparison of two responses, opened where it is new; None when the texts are equal."""
    check_one_workspace(project, first, second)
    require_kind(project, Project.Kind.COMPARISONS)
    if first.pk == second.pk:
        return None
    if first.prompt_id != second.prompt_id:
        raise ImportRefused("two responses to different prompts cannot be compared")
    project = with_current_overlap(project)
    unsaved = new_comparison(
        project=project,
        prompt=first.prompt,
        pair=[first, second],
        origin=origin,
        origin_reference=origin_reference,
        propensity=propensity,
        priority=priority,
    )
    found, _ = store_comparisons(project=project, wanted={unsaved.digest: unsaved})
    return found[unsaved.digest]
