"""Rankings that come with their order: judgments of an imported annotator, of group and pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from annotate.errors import BadRow
from annotate.formats.canonical import canonical_json, sha256
from annotate.formats.rankings import RankingRecord
from annotate.models import Answer, Comparison, Judgment, Project, Response
from annotate.services.answers import CHUNK, chunks, imported_annotators, take_slots

#: A group's row of the queue, its responses by stored position, the row of the file.
Given = tuple[Comparison, Sequence[Response], RankingRecord]


def store_given_ranks(*, project: Project, given: Sequence[Given]) -> tuple[int, int, list[BadRow]]:
    """Store the orders a file brings: (new ones, those that were there, contradictions).

    One per annotator and group; what says otherwise than an earlier row or import is not stored.
    """
    ranked = [each for each in given if each[2].ranks]
    if not ranked:
        return 0, 0, []
    people = imported_annotators(
        workspace=project.workspace, names=sorted({record.annotator for *_, record in ranked})
    )
    said = said_before({group.pk for group, *_ in ranked})
    pairs: dict[int, list[Comparison]] = defaultdict(list)
    for part in chunks(sorted({group.pk for group, *_ in ranked})):
        for pair in Comparison.objects.filter(group__in=part).order_by("pk"):
            pairs[pair.group_id or 0].append(pair)
    fresh: list[Judgment] = []
    of_pairs: list[Judgment] = []
    contradictions: list[BadRow] = []
    seen = 0
    for group, responses, record in ranked:
        ranking, person = ranking_by_position(responses, record), people[record.annotator]
        earlier = said.get((group.pk, person.pk))
        if earlier is not None:
            seen += earlier == ranking
            if earlier != ranking:
                reason = f"{record.annotator} ranked these otherwise before"
                contradictions.append(BadRow(record.line, reason))
            continue
        said[group.pk, person.pk] = ranking
        common: dict[str, Any] = {
            "workspace_id": project.workspace_id,
            "annotator": person,
            "body_digest": sha256(canonical_json(ranking)),
        }
        fresh.append(
            Judgment(
                comparison=group,
                answer=Answer.RANKING,
                details={"ranking": ranking},
                idempotency_key=f"import:{project.pk}:{group.digest}",
                **common,
            )
        )
        position = {response.pk: place for place, response in enumerate(responses)}
        of_pairs += [
            Judgment(
                comparison=pair,
                answer=answer,
                idempotency_key=f"import:{project.pk}:{pair.digest}",
                **common,
            )
            for pair, answer in answers_of_pairs(ranking, position, pairs[group.pk])
        ]
    Judgment.objects.bulk_create([*fresh, *of_pairs], batch_size=CHUNK)
    take_slots(fresh)
    return len(fresh), seen, contradictions


def said_before(groups: set[int]) -> dict[tuple[int, int], list[list[int]]]:
    """{(group, annotator): their ranking as it was first imported}."""
    found = {}
    for part in chunks(sorted(groups)):
        rows = Judgment.objects.filter(
            comparison__in=part, supersedes__isnull=True, assignment__isnull=True
        )
        for group, person, details in rows.values_list("comparison_id", "annotator_id", "details"):
            found[group, person] = details["ranking"]
    return found


def ranking_by_position(responses: Sequence[Response], record: RankingRecord) -> list[list[int]]:
    """A row's ranks as a judgment stores an order: stored positions, the best first; ties share a
    list, and what has no rank is in none."""
    rank = dict(zip(record.responses, record.ranks, strict=True))
    given = [(rank[response.text], place) for place, response in enumerate(responses)]
    numbers = sorted({number for number, _ in given if number is not None})
    return [[place for number, place in given if number == best] for best in numbers]


def answers_of_pairs(
    ranking: list[list[int]], position: dict[int, int], pairs: Sequence[Comparison]
) -> list[tuple[Comparison, str]]:
    """What a ranking says of every two responses that it orders.

    ranking: lists of stored positions, the best first. position: of each response by its id.
    """
    rank = {place: number for number, tied in enumerate(ranking) for place in tied}
    found = []
    for pair in pairs:
        sides = (pair.response_a_id, pair.response_b_id)
        a, b = (rank.get(position[pk]) if pk is not None else None for pk in sides)
        if a is not None and b is not None:
            better = Answer.A if a < b else Answer.B
            found.append((pair, str(Answer.TIE if a == b else better)))
    return found
