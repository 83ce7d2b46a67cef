"""Writing prompts, responses and origins by the thousand: a look-up, one insert, a look-up.

Rows that are there already stay as they are. Inserts ignore conflicts and run in the order of the
digests, so that two imports of the same rows at one time neither clash nor wait in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from annotate.formats.canonical import messages_digest
from annotate.formats.records import Message
from annotate.models import Annotator, Prompt, Response, ResponseOrigin
from rlhf_platform.accounts.models import Workspace

T = TypeVar("T")
#: Values in one look-up, rows in one insert; below every database's limit on parameters.
CHUNK = 500
ResponseKey = tuple[int, str]  # the prompt's id, the digest of the text


def chunks(values: Iterable[T]) -> Iterator[Sequence[T]]:
    values = list(values)
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def store_prompts(
    *, workspace: Workspace, conversations: Iterable[list[Message]]
) -> dict[str, int]:
    """Prompt ids by digest."""
    wanted = {messages_digest(messages): messages for messages in conversations}
    ids = _prompt_ids(workspace, wanted)
    missing = sorted(wanted.keys() - ids.keys())
    if missing:
        Prompt.objects.bulk_create(
            [
                Prompt(workspace=workspace, digest=digest, messages=wanted[digest])
                for digest in missing
            ],
            batch_size=CHUNK,
            ignore_conflicts=True,
        )
        ids |= _prompt_ids(workspace, missing)
    return ids


def store_responses(
    *, workspace: Workspace, texts: dict[ResponseKey, str]
) -> dict[ResponseKey, int]:
    """Response ids by prompt and digest."""
    ids = _response_ids(texts)
    missing = sorted(texts.keys() - ids.keys(), key=lambda key: (key[1], key[0]))
    if missing:
        Response.objects.bulk_create(
            [
                Response(workspace=workspace, prompt_id=key[0], digest=key[1], text=texts[key])
                for key in missing
            ],
            batch_size=CHUNK,
            ignore_conflicts=True,
        )
        ids |= _response_ids(missing)
    return ids


def store_import_origins(*, origins: Iterable[tuple[int, str]]) -> None:
    """Where responses came from: pairs of a response's id and the import's reference."""
    wanted = set(origins)
    known: set[tuple[int, str]] = set()
    for some in chunks({response for response, _ in wanted}):
        known.update(
            ResponseOrigin.objects.filter(
                response_id__in=some, kind=ResponseOrigin.Kind.IMPORT
            ).values_list("response_id", "reference")
        )
    ResponseOrigin.objects.bulk_create(
        [
            ResponseOrigin(
                response_id=response, kind=ResponseOrigin.Kind.IMPORT, reference=reference
            )
            for response, reference in sorted(wanted - known)
        ],
        batch_size=CHUNK,
        ignore_conflicts=True,
    )


def imported_annotators(*, workspace: Workspace, names: Iterable[str]) -> dict[str, int]:
    """Ids of the people that only an import knows, by the name it gives them."""
    return {
        name: Annotator.objects.get_or_create(
            workspace=workspace, kind=Annotator.Kind.IMPORTED, external_name=name
        )[0].pk
        for name in sorted(set(names))
    }


def _prompt_ids(workspace: Workspace, digests: Iterable[str]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for some in chunks(digests):
        ids.update(
            Prompt.objects.filter(workspace=workspace, digest__in=some).values_list("digest", "pk")
        )
    return ids


def _response_ids(keys: Iterable[ResponseKey]) -> dict[ResponseKey, int]:
    ids: dict[ResponseKey, int] = {}
    for some in chunks(keys):
        wanted = set(some)
        rows = Response.objects.filter(
            prompt_id__in={prompt for prompt, _ in some}, digest__in={digest for _, digest in some}
        ).values_list("prompt_id", "digest", "pk")
        ids.update(
            {(prompt, digest): pk for prompt, digest, pk in rows if (prompt, digest) in wanted}
        )
    return ids
