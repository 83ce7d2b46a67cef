"""The judgments that come with imported pairs: one chain per annotator and comparison."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import F
from django.db.models.functions import Greatest

from annotate.errors import BadRow
from annotate.formats.canonical import pair_digest, sha256
from annotate.formats.records import PairRecord
from annotate.models import Annotator, Answer, Comparison, Judgment, Project, Prompt, Response
from rlhf_platform.accounts.models import Workspace

#: Rows per SQL statement; SQLite allows 32,766 parameters.
CHUNK = 1000


def chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def gather_answers(
    keyed: Sequence[tuple[Prompt, PairRecord]],
    responses: dict[tuple[int, str], Response],
    comparisons: dict[str, Comparison],
) -> tuple[dict[tuple[str, str], tuple[str, int]], list[BadRow]]:
    """({(comparison digest, annotator): (answer, line)}, rows that contradict an earlier one)."""
    given: dict[tuple[str, str], tuple[str, int]] = {}
    contradictions = []
    for prompt, record in keyed:
        first = responses[prompt.pk, sha256(record.first)]
        second = responses[prompt.pk, sha256(record.second)]
        digest = pair_digest(prompt.digest, [first.digest, second.digest])
        first_is_a = first.pk == comparisons[digest].response_a_id
        for judgment in record.judgments:
            answer: str = Answer.TIE
            if judgment.answer != "tie":
                answer = Answer.A if (judgment.answer == "first") == first_is_a else Answer.B
            known, line = given.setdefault((digest, judgment.annotator), (answer, record.line))
            if known != answer:
                contradictions.append(
                    BadRow(
                        record.line,
                        f"{judgment.annotator} answers this pair otherwise than in line {line}",
                    )
                )
    return given, contradictions


def store_judgments(
    *,
    project: Project,
    given: dict[tuple[str, str], tuple[str, int]],
    comparisons: dict[str, Comparison],
    contradictions: list[BadRow],
) -> tuple[list[Judgment], int]:
    """Store answers, one chain per annotator and comparison: (the new ones, how many were there).

    What says otherwise than an earlier import is added to `contradictions`.
    """
    annotators = imported_annotators(
        workspace=project.workspace, names=sorted({name for _, name in given})
    )
    judged: dict[tuple[int, int], str] = {}
    for part in chunks(sorted({comparisons[digest].pk for digest, _ in given})):
        rows = Judgment.objects.filter(comparison__in=part, supersedes__isnull=True)
        for comparison, annotator, answer in rows.values_list(
            "comparison_id", "annotator_id", "answer"
        ):
            judged[comparison, annotator] = answer
    fresh = []
    seen = 0
    for (digest, name), (answer, line) in sorted(given.items()):
        earlier = judged.get((comparisons[digest].pk, annotators[name].pk))
        if earlier is None:
            fresh.append(
                Judgment(
                    workspace=project.workspace,
                    comparison=comparisons[digest],
                    annotator=annotators[name],
                    answer=answer,
                    idempotency_key=f"import:{project.pk}:{digest}",
                    body_digest=sha256(answer),
                )
            )
        elif earlier == answer:
            seen += 1
        else:
            reason = f"{name} answered this pair otherwise in an earlier import"
            contradictions.append(BadRow(line, reason))
    Judgment.objects.bulk_create(fresh, batch_size=CHUNK)
    return fresh, seen


def imported_annotators(*, workspace: Workspace, names: Sequence[str]) -> dict[str, Annotator]:
    """The annotators that a file names, made where they are missing."""
    kind = Annotator.Kind.IMPORTED
    Annotator.objects.bulk_create(
        [Annotator(workspace=workspace, kind=kind, external_name=name) for name in names],
        ignore_conflicts=True,
    )
    found = Annotator.objects.filter(workspace=workspace, kind=kind, external_name__in=names)
    return {annotator.external_name: annotator for annotator in found}


def take_slots(judgments: Sequence[Judgment]) -> None:
    """Each judgment that was stored fills a place of its comparison, where one is free."""
    counts = Counter(judgment.comparison_id for judgment in judgments)
    by_count: dict[int, list[int]] = defaultdict(list)
    for part in chunks(sorted(counts)):
        # All locked first, in one order: somebody may be judging these at this moment.
        locked = Comparison.objects.filter(pk__in=part).order_by("pk").select_for_update()
        for comparison in locked.values_list("pk", flat=True):
            by_count[counts[comparison]].append(comparison)
    for count, ids in by_count.items():
        for part in chunks(ids):
            Comparison.objects.filter(pk__in=part).update(slots=Greatest(F("slots") - count, 0))
