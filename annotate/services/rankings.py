"""Rankings of four to nine responses: opened as a group of pairs, answered once, undone together.

The queue serves the group; a submitted order says something of every two responses in it, which is
stored as a judgment of their pair. Agreement, aggregation and snapshots see pairs alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from django.db import transaction

from annotate.errors import AnnotateError, BadRow
from annotate.formats.canonical import canonical_json, pair_digest, sha256, shown
from annotate.formats.rankings import RankingRecord, read_rankings
from annotate.models import (
    Answer,
    Assignment,
    Candidate,
    Comparison,
    Judgment,
    Project,
    Prompt,
    Response,
)
from annotate.services.answers import CHUNK
from annotate.services.given_ranks import answers_of_pairs, store_given_ranks
from annotate.services.ingest import (
    new_comparison,
    refuse_or_skip,
    store_comparisons,
    store_origins,
    store_prompts,
    store_responses,
    with_current_overlap,
)
from annotate.services.labels import require_kind
from annotate.services.topics import store_topics


@dataclass(frozen=True)
class RankingsReport:
    """What an import stored, what was there before, which rows it left out.

    `contradictions` are rows in which somebody ranks a group otherwise than before: the earlier
    ranking stands.
    """

    rankings_new: int = 0
    rankings_seen: int = 0
    judgments_new: int = 0
    judgments_seen: int = 0
    bad_rows: list[BadRow] = field(default_factory=list)
    contradictions: list[BadRow] = field(default_factory=list)


def import_rankings(*, project: Project, path: Path, skip_bad: bool = False) -> RankingsReport:
    """Store a file's groups of responses, and the orders it gives, in a project of rankings.

    Raises WrongKind, NotFound for a missing file, and ImportRefused, with line numbers, for
    anything it cannot use; `skip_bad` leaves such rows out. Nothing is half-stored.
    """
    require_kind(project, Project.Kind.RANKINGS)
    records, bad = read_rankings(path)
    refuse_or_skip(path, bad, good=len(records), skip_bad=skip_bad)
    return store_rankings(project=project, records=records, bad_rows=bad)


@transaction.atomic
def store_rankings(
    *, project: Project, records: Sequence[RankingRecord], bad_rows: list[BadRow] | None = None
) -> RankingsReport:
    """Store read groups, each with its candidates and the pairs of them; what is there stays."""
    require_kind(project, Project.Kind.RANKINGS)
    # Two imports into one project take turns: each then knows what is new.
    project = with_current_overlap(project)
    prompts = store_prompts(
        workspace=project.workspace, conversations=[record.messages for record in records]
    )
    keyed = [(prompts[sha256(canonical_json(record.messages))], record) for record in records]
    store_topics(
        workspace=project.workspace, named=[(prompt, record.topics) for prompt, record in keyed]
    )
    responses = store_responses(
        workspace=project.workspace,
        texts=[(prompt, text) for prompt, record in keyed for text in record.responses],
    )
    store_origins(
        [
            (responses[prompt.pk, sha256(text)], record.reference)
            for prompt, record in keyed
            for text in record.responses
        ]
    )
    wanted: dict[str, Comparison] = {}
    members: dict[str, list[Response]] = {}
    ranked: list[tuple[str, RankingRecord]] = []
    for prompt, record in keyed:
        # By digest, so that the order of a file, which may be that of its models, leaves no trace.
        group = sorted(
            (responses[prompt.pk, sha256(text)] for text in record.responses),
            key=lambda response: response.digest,
        )
        unsaved = new_ranking(project=project, prompt=prompt, responses=group)
        if wanted.setdefault(unsaved.digest, unsaved) is unsaved:
            members[unsaved.digest] = group
        ranked.append((unsaved.digest, record))
    found, new = store_comparisons(project=project, wanted=wanted)
    opened = [(found[digest], members[digest]) for digest in wanted if digest in new]
    Candidate.objects.bulk_create(
        [
            Candidate(comparison=ranking, response=response, position=position)
            for ranking, group in opened
            for position, response in enumerate(group)
        ],
        batch_size=CHUNK,
    )
    Comparison.objects.bulk_create(
        [pair for ranking, group in opened for pair in pairs_of(ranking, group)], batch_size=CHUNK
    )
    fresh, seen, contradictions = store_given_ranks(
        project=project,
        given=[(found[digest], members[digest], record) for digest, record in ranked],
    )
    return RankingsReport(
        rankings_new=len(new),
        rankings_seen=len(wanted) - len(new),
        judgments_new=fresh,
        judgments_seen=seen,
        bad_rows=bad_rows or [],
        contradictions=contradictions,
    )


def new_ranking(*, project: Project, prompt: Prompt, responses: Sequence[Response]) -> Comparison:
    """An unsaved row of the queue that holds a group of responses."""
    return Comparison(
        workspace=project.workspace,
        project=project,
        prompt=prompt,
        digest=pair_digest(prompt.digest, [response.digest for response in responses]),
        origin=Comparison.Origin.IMPORT,
        slots=project.overlap,
    )


def pairs_of(ranking: Comparison, responses: Sequence[Response]) -> list[Comparison]:
    """Unsaved comparisons of every two. Their digest names the group, since two groups may share
    two responses: each then has its own evidence, and one person one chain of judgments in each."""
    found = []
    for two in combinations(responses, 2):
        pair = new_comparison(
            project=ranking.project, prompt=ranking.prompt, pair=two, origin=ranking.origin
        )
        pair.group = ranking
        pair.slots = 0
        pair.digest = pair_digest(
            ranking.prompt.digest, [ranking.digest, *(response.digest for response in two)]
        )
        found.append(pair)
    return found


def checked_ranking(*, order: Sequence[int], ranking: object) -> list[list[int]]:
    """An order as a judgment stores it, by stored positions, the best first; ties share a list.

    order: the stored positions as they were shown. ranking: lists of places as they were shown,
    from 1. A response without a place is in none of the pairs: nothing was said of it.
    Raises AnnotateError for places that are not there, or are named twice, or fewer than two.
    """
    if not isinstance(ranking, list) or not all(isinstance(tied, list) for tied in ranking):
        raise AnnotateError(
            f"ranking is {shown(ranking)}; use a list of lists of places, the best first, such as "
            "[[2], [1, 3]]"
        )
    places = [place for tied in ranking for place in tied]
    for place in places:
        if type(place) is not int or not 1 <= place <= len(order):
            raise AnnotateError(
                f"ranking: there is no response {shown(place)}; use 1 to {len(order)}"
            )
    if len(set(places)) != len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise AnnotateError(f"ranking: response {twice} has two places; give it one")
    if len(places) < 2:
        raise AnnotateError("ranking: give two responses or more a place, then send it again")
    return [sorted(order[place - 1] for place in tied) for tied in ranking if tied]


def ranking_from_ranks(ranks: Mapping[int, int]) -> list[list[int]]:
    """Numbers given to places (1 is best, equal numbers tie) as lists of places."""
    return [
        sorted(place for place, rank in ranks.items() if rank == value)
        for value in sorted(set(ranks.values()))
    ]


def store_pair_judgments(judgment: Judgment) -> None:
    """What a ranking says of its pairs, after what the same person's last one said of them.

    A pair that is no longer ranked is taken back, and so is every one by a withdrawal. Call it in
    the transaction that stores `judgment`.
    """
    pairs = list(Comparison.objects.filter(group=judgment.comparison_id).order_by("pk"))
    before: dict[int, Judgment] = {}
    earlier = Judgment.objects.filter(
        comparison__group=judgment.comparison_id, annotator=judgment.annotator_id
    )
    for row in earlier.order_by("pk"):
        before[row.comparison_id] = row
    said = answers_by_pair(judgment, pairs)
    known = {"known_model": True} if judgment.details.get("known_model") else {}
    rows = []
    for pair in pairs:
        latest, answer = before.get(pair.pk), said.get(pair.pk)
        if answer is None and (latest is None or latest.answer == Answer.WITHDRAWN):
            continue
        rows.append(
            Judgment(
                workspace_id=judgment.workspace_id,
                comparison=pair,
                annotator_id=judgment.annotator_id,
                assignment_id=judgment.assignment_id,
                guideline_id=judgment.guideline_id,
                answer=answer[0] if answer else Answer.WITHDRAWN,
                swapped=answer[1] if answer else latest.swapped if latest else None,
                details=known if answer else {},
                idempotency_key=f"pair:{uuid.uuid4().hex}",
                body_digest=sha256(f"pair of {judgment.pk}"),
                supersedes=latest,
            )
        )
    Judgment.objects.bulk_create(rows)


def answers_by_pair(judgment: Judgment, pairs: Sequence[Comparison]) -> dict[int, tuple[str, bool]]:
    """{pair: (answer, whether B was shown before A)} of all pairs that the ranking orders."""
    if judgment.answer != Answer.RANKING or judgment.assignment is None:
        return {}
    place = {position: number for number, position in enumerate(judgment.assignment.order)}
    candidates = Candidate.objects.filter(comparison=judgment.comparison_id)
    of: dict[int, int] = dict(candidates.values_list("response_id", "position"))
    return {
        pair.pk: (answer, place[of[pair.response_b_id or 0]] < place[of[pair.response_a_id or 0]])
        for pair, answer in answers_of_pairs(judgment.details["ranking"], of, pairs)
    }


@dataclass(frozen=True)
class Shown:
    """One response of a ranking as a person sees it: its place from 1, its letter, its text."""

    place: int
    text: str

    @property
    def letter(self) -> str:
        return "ABCDEFGHI"[self.place - 1]


def shown_candidates(assignment: Assignment) -> list[Shown]:
    """The responses of a leased ranking in the order drawn for it."""
    candidates: dict[int, Any] = {
        row.position: row for row in assignment.comparison.candidates.select_related("response")
    }
    return [
        Shown(place, candidates[position].response.text)
        for place, position in enumerate(assignment.order, start=1)
    ]
