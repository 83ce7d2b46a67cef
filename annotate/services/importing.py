"""Writing the comparisons and judgments of one import, in a number of queries that hardly grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from annotate.errors import BadRow
from annotate.formats.canonical import comparison_digest, messages_digest, sha256
from annotate.formats.records import ComparisonRecord, Message, ResponseRecord, Winner
from annotate.models import Answer, Comparison, Judgment, Project
from annotate.services.storing import (
    CHUNK,
    chunks,
    imported_annotators,
    store_import_origins,
    store_prompts,
    store_responses,
)


@dataclass
class PlannedPair:
    """A comparison as it will be stored: A is the response whose digest sorts first.

    A file's own order says who won (HH puts the chosen text first), so it must not become A and B.
    """

    messages: list[Message]
    prompt: str
    a: str
    b: str
    responses: dict[str, str]
    origins: set[tuple[str, str]] = field(default_factory=set)
    #: What each annotator said, and the line that says so.
    answers: dict[str, tuple[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    comparisons_new: int
    comparisons_seen: int
    judgments_new: int
    judgments_seen: int
    contradictions: list[BadRow]


def plan_pairs(
    records: Iterable[ComparisonRecord],
) -> tuple[dict[str, PlannedPair], list[BadRow]]:
    """The different pairs by digest, and the rows in which somebody contradicts themselves."""
    pairs: dict[str, PlannedPair] = {}
    contradictions = []
    for record in records:
        first, second = sha256(record.first.text), sha256(record.second.text)
        prompt = messages_digest(record.messages)
        pair = pairs.setdefault(
            comparison_digest(prompt, [first, second]),
            PlannedPair(
                messages=record.messages,
                prompt=prompt,
                a=min(first, second),
                b=max(first, second),
                responses={first: record.first.text, second: record.second.text},
            ),
        )
        pair.origins |= {_origin(first, record.first), _origin(second, record.second)}
        for annotator, winner in record.judgments:
            answer = _answer(winner, first_is_a=first == pair.a)
            known, line = pair.answers.setdefault(annotator, (answer, record.line))
            if known != answer:
                contradictions.append(
                    BadRow(
                        record.line,
                        f"{annotator} answers the same pair otherwise than in line {line}; "
                        "the first answer was kept",
                    )
                )
    return pairs, contradictions


def store_pairs(*, project: Project, pairs: dict[str, PlannedPair], reference: str) -> Stored:
    """Store what is not there yet. The caller holds the project's lock inside a transaction."""
    comparisons, new = _store_comparisons(project, pairs, reference)
    annotators = imported_annotators(
        workspace=project.workspace,
        names=(name for pair in pairs.values() for name in pair.answers),
    )
    said = _first_answers(comparisons.values(), annotators.values())
    judgments: list[Judgment] = []
    contradictions: list[BadRow] = []
    seen = 0
    for digest, pair in sorted(pairs.items()):
        for name, (answer, line) in pair.answers.items():
            key = (comparisons[digest], annotators[name])
            if key not in said:
                judgments.append(_judgment(project, digest, key, answer))
            elif said[key] == answer:
                seen += 1
            else:
                contradictions.append(
                    BadRow(line, f"{name} answered this pair otherwise in an earlier import")
                )
    Judgment.objects.bulk_create(judgments, batch_size=CHUNK, ignore_conflicts=True)
    _take_slots(judgments)
    return Stored(
        comparisons_new=new,
        comparisons_seen=len(pairs) - new,
        judgments_new=len(judgments),
        judgments_seen=seen,
        contradictions=contradictions,
    )


def _store_comparisons(
    project: Project, pairs: dict[str, PlannedPair], reference: str
) -> tuple[dict[str, int], int]:
    """Comparison ids by digest, and how many of them are new."""
    workspace = project.workspace
    prompts = store_prompts(
        workspace=workspace, conversations=(pair.messages for pair in pairs.values())
    )
    responses = store_responses(
        workspace=workspace,
        texts={
            (prompts[pair.prompt], digest): text
            for pair in pairs.values()
            for digest, text in pair.responses.items()
        },
    )
    store_import_origins(
        origins={
            (responses[prompts[pair.prompt], digest], origin)
            for pair in pairs.values()
            for digest, origin in pair.origins
        }
    )
    known = _comparison_ids(project, pairs)
    missing = sorted(pairs.keys() - known.keys())
    Comparison.objects.bulk_create(
        [
            Comparison(
                workspace=workspace,
                project=project,
                prompt_id=prompts[pairs[digest].prompt],
                response_a_id=responses[prompts[pairs[digest].prompt], pairs[digest].a],
                response_b_id=responses[prompts[pairs[digest].prompt], pairs[digest].b],
                digest=digest,
                origin=Comparison.Origin.IMPORT,
                origin_reference=reference,
                slots=project.overlap,
            )
            for digest in missing
        ],
        batch_size=CHUNK,
        ignore_conflicts=True,
    )
    return known | _comparison_ids(project, missing), len(missing)


def _judgment(project: Project, digest: str, key: tuple[int, int], answer: str) -> Judgment:
    return Judgment(
        workspace=project.workspace,
        comparison_id=key[0],
        annotator_id=key[1],
        answer=answer,
        idempotency_key=f"import:{project.pk}:{digest}",
        body_digest=sha256(answer),
    )


def _take_slots(judgments: list[Judgment]) -> None:
    """Each stored judgment fills one of its comparison's places, where one is open."""
    taken = Counter(judgment.comparison_id for judgment in judgments)
    for some in chunks(sorted(taken)):
        locked = Comparison.objects.select_for_update().filter(pk__in=some).order_by("pk")
        changed = list(locked)
        for comparison in changed:
            comparison.slots = max(0, comparison.slots - taken[comparison.pk])
        Comparison.objects.bulk_update(changed, ["slots"], batch_size=CHUNK)


def _comparison_ids(project: Project, digests: Iterable[str]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for some in chunks(digests):
        ids.update(
            Comparison.objects.filter(project=project, digest__in=some).values_list("digest", "pk")
        )
    return ids


def _first_answers(
    comparisons: Iterable[int], annotators: Iterable[int]
) -> dict[tuple[int, int], str]:
    """The answer that opened each (comparison, annotator) chain, even if taken back since."""
    people = list(annotators)
    said: dict[tuple[int, int], str] = {}
    for some in chunks(comparisons):
        rows = Judgment.objects.filter(
            comparison_id__in=some, annotator_id__in=people, supersedes__isnull=True
        ).values_list("comparison_id", "annotator_id", "answer")
        said.update({(comparison, annotator): answer for comparison, annotator, answer in rows})
    return said


def _origin(digest: str, response: ResponseRecord) -> tuple[str, str]:
    return digest, response.reference


def _answer(winner: Winner, *, first_is_a: bool) -> str:
    if winner == "tie":
        return Answer.TIE
    return Answer.A if (winner == "first") == first_is_a else Answer.B
