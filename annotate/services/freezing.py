"""Freezing preferences into a snapshot: chosen, labelled, split and hashed, never changed again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.db.models import Max

from annotate.errors import AnnotateError, NothingToFreeze
from annotate.formats.canonical import canonical_json, sha256
from annotate.models import (
    Aggregation,
    JudgeVersion,
    Preference,
    Project,
    Prompt,
    Response,
    Snapshot,
    SnapshotRow,
)
from annotate.services import freezing_labels
from annotate.services.aggregation import aggregate_project, judgment_state
from annotate.services.freezing_replies import Columns, columns_of, more_of
from rlhf_platform.accounts.models import User

#: Stored with every snapshot.
RULE: dict[str, Any] = {
    "version": 1,
    "rows": "comparisons whose outcome is a or b and whose responses are not both empty",
    "chosen": "the response of the outcome; probability is P(chosen better)",
    "split": "by the first 8 bytes of SHA-256(salt + prompt digest): a prompt is in one split only",
    "sha256": "over the rows' canonical JSON, one a line, sorted by the bytes of their digests",
}
CHUNK = 500


NO_MORE = Columns()
#: digest, content, preference, split
Row = tuple[str, str, Preference, str]


def message(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def row_content(
    preference: Preference,
    prompt: Prompt,
    a: Response,
    b: Response,
    columns: Columns = NO_MORE,
) -> dict[str, Any]:
    """One row. Holds no annotator, no database id, and no words of theirs but rewritten answers.

    judged_by names the judge of a row that no person judged; people's rows do not have it.
    """
    a_better = preference.outcome == Preference.Outcome.A
    chosen, rejected = (a, b) if a_better else (b, a)
    probability = preference.probability if a_better else 1.0 - preference.probability
    return {
        "id": preference.comparison.digest,
        "prompt_id": prompt.digest,
        "prompt": prompt.messages,
        "chosen": message(chosen.text),
        "rejected": message(rejected.text),
        "probability": round(probability, 6),
        "n_judgments": preference.n_a + preference.n_b + preference.n_tie + preference.n_both_bad,
        **judged_by(preference),
        **more_of(preference, columns),
    }


def judged_by(preference: Preference) -> dict[str, str]:
    """The mark of a machine's row; nothing for people's."""
    row = preference.machine_judgment
    return {} if row is None else {"judged_by": f"machine:{row.judge.name}:v{row.judge.version}"}


def in_test(prompt_digest: str, *, salt: str, test_fraction: float) -> bool:
    """Whether a prompt's rows are held out; depends on nothing but prompt, salt and fraction."""
    draw = int(sha256(salt + prompt_digest)[:16], 16) / 2**64
    return draw < test_fraction


def why_left_out(preference: Preference, a: Response, b: Response) -> str:
    """Why a preference becomes no row; empty when it becomes one."""
    if preference.outcome == Preference.Outcome.TIE:
        return "tie"
    if preference.outcome == Preference.Outcome.BOTH_BAD:
        return "both_bad"
    if not a.text.strip() and not b.text.strip():
        return "both_empty"
    return ""


def compared_rows(
    aggregation: Aggregation, held_out: Callable[[str], bool], columns: Columns = NO_MORE
) -> tuple[list[tuple[str, Preference, str]], Counter[str]]:
    """([(content, preference, split), …], why others were left out) of two responses each.

    held_out: whether the prompt of a digest is in the test split. columns: those beyond the usual
    """
    left_out: Counter[str] = Counter()
    rows = []
    preferences = aggregation.preferences.select_related(
        "comparison__prompt",
        "comparison__response_a",
        "comparison__response_b",
        "machine_judgment__judge",
    )
    if columns.judgments:
        preferences = preferences.prefetch_related("judgments__guideline")
    for preference in preferences.iterator(chunk_size=2000):
        prompt, (a, b) = preference.comparison.prompt, preference.comparison.pair
        reason = why_left_out(preference, a, b)
        if reason:
            left_out[reason] += 1
            continue
        split = "test" if held_out(prompt.digest) else "train"
        if split == "test" and preference.machine_judgment_id is not None:
            left_out["machine_held_out"] += 1
            continue
        content = row_content(preference, prompt, a, b, columns)
        rows.append((canonical_json(content), preference, split))
    return rows, left_out


def current_aggregation(project: Project, *, leave_out_known: bool) -> Aggregation:
    past = project.aggregations.filter(judge=None).order_by("-pk")
    known = past.filter if leave_out_known else past.exclude
    latest = known(rule__has_key="known_model").first()
    if latest and latest.summary.get("judgment_state") == judgment_state(project=project):
        return latest
    return aggregate_project(project=project, leave_out_known=leave_out_known)


@transaction.atomic
def freeze_snapshot(
    *,
    project: Project,
    aggregation: Aggregation | None = None,
    test_fraction: float = 0.2,
    judge: JudgeVersion | None = None,
    leave_out_known: bool = False,
    actor: User | None = None,
) -> Snapshot:
    """An immutable snapshot of an aggregation (by default the latest that no judgment outdated).

    judge: a calibrated machine whose judgments stand where no person judged; they are marked, and
    only trained on: what is held out was judged by people. leave_out_known: judgments of people who
    said that they knew the model do not count; otherwise they do, and are marked.
    Raises NothingToFreeze where a split would be empty, NotCalibrated, AnnotateError for an
    impossible fraction.
    """
    if not 0.0 < test_fraction < 1.0:
        raise AnnotateError(f"the test fraction is {test_fraction}; allowed: between 0 and 1")
    if judge is not None:
        if aggregation is not None:
            raise AnnotateError("name a judge or an aggregation, which has its own; not both")
        aggregation = aggregate_project(
            project=project, judge=judge, leave_out_known=leave_out_known
        )
    aggregation = aggregation or current_aggregation(project, leave_out_known=leave_out_known)
    if aggregation.project_id != project.pk:
        raise AnnotateError(f"aggregation {aggregation.pk} is of another project")
    salt = project.slug
    labels = project.kind == Project.Kind.LABELS
    columns = NO_MORE if labels else columns_of(aggregation)

    def held_out(digest: str) -> bool:
        return in_test(digest, salt=salt, test_fraction=test_fraction)

    if labels:
        found, left_out = freezing_labels.label_rows(aggregation, held_out)
    else:
        found, left_out = compared_rows(aggregation, held_out, columns)
    rows: list[Row] = [
        (sha256(content), content, preference, split) for content, preference, split in found
    ]
    by_machine = sum(preference.machine_judgment_id is not None for _, _, preference, _ in rows)
    machine = {} if judge is None else {"by_machine": by_machine}
    counts = Counter(split for *_, split in rows)
    for split in SnapshotRow.Split.values:
        if not counts[split]:
            raise NothingToFreeze(
                f"the snapshot would hold no {split} rows: {len(rows)} of "
                f"{len(rows) + sum(left_out.values())} judged comparisons are usable. "
                "Collect more judgments, or change the test fraction"
            )
    rows.sort(key=lambda row: bytes.fromhex(row[0]))
    # The project's row serialises two freezes, which would otherwise draw the same number.
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    highest = project.snapshots.aggregate(highest=Max("number"))["highest"] or 0
    snapshot = Snapshot.objects.create(
        workspace=project.workspace,
        project=project,
        aggregation=aggregation,
        number=highest + 1,
        rule={
            **(freezing_labels.RULE if labels else RULE),
            **columns.rule,
            "test_fraction": test_fraction,
            "salt": salt,
            "belief": aggregation.rule,
        },
        summary={"left_out": dict(left_out), "aggregated": aggregation.summary, **machine},
        sha256=sha256("".join(f"{content}\n" for _, content, _, _ in rows)),
        n_train=counts[SnapshotRow.Split.TRAIN],
        n_test=counts[SnapshotRow.Split.TEST],
        created_by=actor,
    )
    SnapshotRow.objects.bulk_create(
        [
            SnapshotRow(
                snapshot=snapshot,
                preference=preference,
                split=split,
                digest=digest,
                position=position,
                content=content,
            )
            for position, (digest, content, preference, split) in enumerate(rows)
        ],
        batch_size=CHUNK,
    )
    return snapshot
