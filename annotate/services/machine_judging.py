"""Machines that judge: registering a version, storing what it said, accepting its calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from django.conf import settings as site
from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django.db import transaction
from django.db.models import Max

from annotate.errors import AnnotateError, NotCalibrated
from annotate.formats.canonical import canonical_json, sha256, text_problem
from annotate.models import Calibration, JudgeVersion, MachineJudgment, Project
from annotate.selectors.judges import accepted_calibration, calibration_figures
from annotate.services.walls import check_one_workspace
from rlhf_platform.accounts.models import Membership, Role, User, Workspace

CHUNK = 500
LONGEST_REASON = 4000
#: An engine's word for a side of its row, where first is A.
ANSWERS = {"first": "a", "second": "b", "tie": "tie", None: "none"}


@transaction.atomic
def register_judge(
    *,
    workspace: Workspace,
    name: str,
    rubric: str,
    settings: Mapping[str, Any],
    actor: User | None = None,
) -> JudgeVersion:
    """The version of this judge with exactly this rubric and these settings; a new one if none is.

    Raises AnnotateError for a name that is no short name, or an empty rubric.
    """
    try:
        validate_slug(name)
    except ValidationError:
        raise AnnotateError(f"{name!r} is no short name: letters, digits, - and _") from None
    if len(name) > 50:
        raise AnnotateError("a judge's short name has at most 50 characters")
    problem = text_problem(rubric, "the rubric")
    if problem or not rubric.strip():
        raise AnnotateError(problem or "the rubric is empty")
    digest = sha256(canonical_json({"rubric": rubric, "settings": dict(settings)}))
    # The workspace's row makes two registrations take turns; both would draw the same number.
    Workspace.objects.select_for_update(no_key=True).get(pk=workspace.pk)
    versions = JudgeVersion.objects.filter(workspace=workspace, name=name)
    found = versions.filter(digest=digest).first()
    if found is not None:
        return found
    highest = versions.aggregate(highest=Max("version"))["highest"] or 0
    return JudgeVersion.objects.create(
        workspace=workspace,
        name=name,
        version=highest + 1,
        rubric=rubric,
        settings=dict(settings),
        digest=digest,
        created_by=actor,
    )


@transaction.atomic
def store_machine_judgments(
    *, judge: JudgeVersion, project: Project, rows: Sequence[Mapping[str, Any]]
) -> int:
    """Store rows of an engine's judgments.jsonl, all or none; what is stored already stays.

    A row's id is its comparison's digest. Raises AnnotateError naming the first row that is of
    another shape or of no comparison of the project. Returns: how many are new
    """
    check_one_workspace(judge, project)
    comparisons = dict(project.comparisons.values_list("digest", "pk"))
    made = [read_row(row, number, comparisons) for number, row in enumerate(rows, start=1)]
    before = judge.judgments.count()
    MachineJudgment.objects.bulk_create(
        [MachineJudgment(workspace=judge.workspace, judge=judge, **fields) for fields in made],
        batch_size=CHUNK,
        ignore_conflicts=True,
    )
    return judge.judgments.count() - before


def read_row(row: Any, number: int, comparisons: Mapping[str, int]) -> dict[str, Any]:
    """The fields of one row. Raises AnnotateError: it comes from a process that reads a model."""
    try:
        comparison = comparisons[row["id"]]
        flipped, tokens, orders = row["flipped"], row["tokens"], row["orders"]
        answer = ANSWERS[row["choice"]]
        a_first, b_first = (ANSWERS[each] for each in orders)
        reasons = [cleaned(reason) for reason in row["reasons"]]
        probability = row.get("probability")
        good = isinstance(flipped, bool) and type(tokens) is int and 0 <= tokens < 2**53
        if probability is not None:
            good = good and math.isfinite(probability) and 0.0 <= probability <= 1.0
        good = good and answer == verdict_of(a_first, b_first)
        good = good and flipped == ({a_first, b_first} == {"a", "b"})
    except (KeyError, TypeError, ValueError):
        good = False
    if not good:
        raise AnnotateError(
            f"judgment {number} is not one of this project's comparisons in the form of "
            "judgments.jsonl; nothing was stored"
        )
    return {
        "comparison_id": comparison,
        "answer": answer,
        "flipped": flipped,
        "a_first": a_first,
        "b_first": b_first,
        "probability": probability,
        "reasons": reasons,
        "tokens": tokens,
    }


def verdict_of(a_first: str, b_first: str) -> str:
    """What both orders amount to: a side that wins in both, else a tie; none where one is none."""
    if "none" in (a_first, b_first):
        return "none"
    return a_first if a_first == b_first else "tie"


def cleaned(reason: object) -> str:
    """A machine's words as text that any database holds."""
    if not isinstance(reason, str):
        raise TypeError("a reason is text")
    text = reason.replace("\x00", "\N{SYMBOL FOR NULL}")
    return text.encode("utf-8", "replace").decode()[:LONGEST_REASON]


@transaction.atomic
def accept_calibration(
    *, judge: JudgeVersion, project: Project, actor: User, reason: str
) -> Calibration:
    """Let snapshots of this project use this version's judgments, on the numbers of now.

    Raises NotCalibrated with too few comparisons that people judged too, AnnotateError for whoever
    is no admin or gives no reason.
    """
    check_one_workspace(judge, project)
    problem = text_problem(reason, "the reason")
    if problem or not reason.strip():
        raise AnnotateError(problem or "say why this agreement is enough; the reason is kept")
    if len(reason) > LONGEST_REASON:
        raise AnnotateError(f"a reason has at most {LONGEST_REASON} characters")
    admin = Membership.objects.filter(
        workspace=project.workspace, user=actor, role=Role.ADMIN
    ).exists()
    if not admin:
        raise AnnotateError("only an admin may accept a judge's calibration")
    figures = calibration_figures(judge=judge, project=project)
    n, wanted = figures.agreement.n, site.JUDGE_CALIBRATION_ROWS
    if n < wanted:
        raise NotCalibrated(
            f"{judge} and people have both judged {n} comparisons of {project}; a calibration "
            f"needs {wanted}. Let it judge more of what people have judged"
        )
    return Calibration.objects.create(
        workspace=project.workspace,
        judge=judge,
        project=project,
        n=n,
        figures=asdict(figures),
        reason=reason.strip(),
        accepted_by=actor,
    )


def require_calibrated(*, judge: JudgeVersion, project: Project) -> Calibration:
    """The accepted calibration. Raises NotCalibrated: nobody trains on an unchecked machine."""
    check_one_workspace(judge, project)
    found = accepted_calibration(judge=judge, project=project)
    if found is None:
        raise NotCalibrated(
            f"{judge} is not calibrated in {project}: an admin has to see its agreement with "
            "people, and accept it, before anybody may train on what it says"
        )
    return found
