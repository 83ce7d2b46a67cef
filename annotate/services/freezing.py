"""From preferences to a snapshot: rows chosen by a stated rule, split by prompt, hashed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Max

from annotate.errors import AnnotateError, NothingToFreeze
from annotate.formats.canonical import canonical_json, lines_digest, sha256
from annotate.models import Aggregation, Judgment, Preference, Project, Snapshot, SnapshotRow
from annotate.services.aggregation import aggregate_project, judgment_state
from annotate.services.storing import CHUNK
from rlhf_platform.accounts.models import User

#: One salt for all: a prompt stays on its side of the split in every later snapshot, so that what
#: one round was trained on is never what another is measured on.
SALT = "split-1"


@dataclass(frozen=True)
class _Row:
    preference: int
    split: str
    digest: str
    content: str


@transaction.atomic
def freeze_snapshot(
    *,
    project: Project,
    aggregation: Aggregation | None = None,
    test_fraction: float = 0.2,
    actor: User | None = None,
) -> Snapshot:
    """The next snapshot of a project.

    Without an `aggregation` the latest is taken, or a new one made if judgments came since.
    """
    if not 0 < test_fraction < 1:
        raise AnnotateError(f"A held-out share of {test_fraction:g} leaves nothing; use e.g. 0.2.")
    locked = Project.objects.select_for_update().get(pk=project.pk)
    aggregation = aggregation or _current_aggregation(locked)
    if aggregation.project_id != project.pk:
        raise AnnotateError("The aggregation belongs to another project.")
    left_out: Counter[str] = Counter()
    rows = sorted(_rows(aggregation, test_fraction, left_out), key=lambda row: row.digest)
    splits = Counter(row.split for row in rows)
    _check_splits(project, splits, left_out, test_fraction)
    number = locked.snapshots.aggregate(last=Max("number"))["last"] or 0
    snapshot = Snapshot.objects.create(
        workspace=project.workspace,
        project=project,
        aggregation=aggregation,
        number=number + 1,
        rule=_rule(test_fraction),
        summary=_summary(aggregation, splits, left_out),
        sha256=lines_digest(row.content for row in rows),
        n_train=splits["train"],
        n_test=splits["test"],
        created_by=actor,
    )
    SnapshotRow.objects.bulk_create(
        [
            SnapshotRow(
                snapshot=snapshot,
                preference_id=row.preference,
                split=row.split,
                digest=row.digest,
                position=position,
                content=row.content,
            )
            for position, row in enumerate(rows)
        ],
        batch_size=CHUNK,
    )
    return snapshot


def split_of(prompt_digest: str, test_fraction: float) -> str:
    """Which side a prompt is on: a hash of it as a number in [0, 1), below the share or not."""
    draw = hashlib.sha256(f"{SALT}\n{prompt_digest}".encode()).digest()
    return "test" if int.from_bytes(draw[:8], "big") / 2**64 < test_fraction else "train"


def _current_aggregation(project: Project) -> Aggregation:
    latest = project.aggregations.order_by("-pk").first()
    if latest and latest.summary.get("judgment_state") == judgment_state(project=project):
        return latest
    return aggregate_project(project=project)


def _rows(aggregation: Aggregation, test_fraction: float, left_out: Counter[str]) -> Iterator[_Row]:
    preferences = aggregation.preferences.select_related(
        "comparison__prompt", "comparison__response_a", "comparison__response_b"
    )
    for preference in preferences.iterator(chunk_size=CHUNK):
        reason = _reason_to_drop(preference)
        if reason:
            left_out[reason] += 1
            continue
        split = split_of(preference.comparison.prompt.digest, test_fraction)
        content = canonical_json(_content(preference, split))
        yield _Row(preference.pk, split, sha256(content), content)


def _reason_to_drop(preference: Preference) -> str:
    if preference.outcome in (Preference.Outcome.TIE, Preference.Outcome.BOTH_BAD):
        return str(preference.outcome)
    responses = preference.comparison.response_a, preference.comparison.response_b
    return "" if any(response.text.strip() for response in responses) else "both_empty"


def _content(preference: Preference, split: str) -> dict[str, Any]:
    """What a row says. Nothing in it depends on a database's ids or on who judged."""
    comparison = preference.comparison
    chosen, rejected = comparison.response_a.text, comparison.response_b.text
    probability = preference.probability
    if preference.outcome == Preference.Outcome.B:
        chosen, rejected, probability = rejected, chosen, 1 - probability
    judgments = preference.n_a + preference.n_b + preference.n_tie + preference.n_both_bad
    return {
        "id": comparison.digest,
        "prompt_id": comparison.prompt.digest,
        "prompt": comparison.prompt.messages,
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        # Six digits: one minus a third must not differ from two thirds in the last bit.
        "probability": round(probability, 6),
        "n_judgments": judgments,
        "split": split,
    }


def _check_splits(
    project: Project, splits: Counter[str], left_out: Counter[str], test_fraction: float
) -> None:
    if splits["train"] and splits["test"]:
        return
    if not splits:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        raise NothingToFreeze(
            f"No comparison of {project.slug!r} has a decided preference"
            f"{f' (left out: {why})' if why else ''}; import judgments or judge some pairs first."
        )
    if splits["train"]:
        raise NothingToFreeze(
            f"None of the prompts fell into the held-out part ({test_fraction:g} of them by hash), "
            "so nothing could be measured; judge pairs of more prompts or raise the test fraction."
        )
    raise NothingToFreeze(
        f"All of the prompts fell into the held-out part ({test_fraction:g} of them by hash), "
        "so nothing is left to train on; judge pairs of more prompts or lower the test fraction."
    )


def _rule(test_fraction: float) -> dict[str, Any]:
    return {
        "version": 1,
        "ties": "dropped",
        "both_bad": "dropped",
        "both_empty": "dropped: neither response holds more than blanks",
        "chosen": "the response that the aggregation's outcome names",
        "probability": "the aggregation's belief that the chosen response is better, to six digits",
        "id": "SHA-256 of the prompt's digest and the two responses' digests in order, one a line",
        "test_fraction": test_fraction,
        "salt": SALT,
        "split": (
            "by prompt: test where the first 8 bytes of SHA-256(salt, line feed, prompt_id) as a "
            "big-endian number over 2^64 are below test_fraction"
        ),
        "sha256": "over the rows' canonical JSON lines of both splits, sorted by their own SHA-256",
    }


def _summary(
    aggregation: Aggregation, splits: Counter[str], left_out: Counter[str]
) -> dict[str, Any]:
    used = Judgment.objects.filter(preferences__aggregation=aggregation)
    versions = used.order_by().values_list("guideline__version", flat=True).distinct()
    origins = Counter(
        f"{origin} {reference}".strip()
        for origin, reference in aggregation.preferences.values_list(
            "comparison__origin", "comparison__origin_reference"
        )
    )
    return {
        "kept": splits.total(),
        "left_out": dict(sorted(left_out.items())),
        "sources": dict(sorted(origins.items())),
        "judgments": used.count(),
        "annotators": used.order_by().values("annotator").distinct().count(),
        #: `None` stands for judgments that were made elsewhere and imported.
        "guideline_versions": sorted(versions, key=lambda version: version or 0),
        "agreement": aggregation.summary.get("agreement", {}),
    }
