"""Every named constraint of our tables is violated here once, on whichever database runs the suite.

Each case copies a sound row, changes what is named, and inserts the copy. The list of cases is
compared with the models, so a constraint without a case fails.
"""

from __future__ import annotations

import copy
from typing import Any
from uuid import uuid4

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, models, transaction
from django.utils import timezone

from annotate.models import (
    Aggregation,
    Assignment,
    Candidate,
    Flag,
    JudgeVersion,
    MachineJudgment,
    Participation,
    Preference,
    PromptSet,
    PromptSetEntry,
    PromptTopic,
    Report,
    ResponseOrigin,
    Snapshot,
    SnapshotRow,
)
from rlhf_platform.accounts.models import Membership
from tests.factories import (
    make_annotator,
    make_comparison,
    make_judgment,
    make_project,
    make_prompt,
    make_response,
)
from tests.people import People
from tests.training.rows import make_attempt
from training.models import (
    Job,
    ModelVersion,
    Round,
    Run,
    RunCalibration,
    RunCheckpoint,
    RunEvent,
    RunMetric,
    Sample,
    TextDocument,
    TextSet,
)

Rows = dict[str, models.Model]
NOWHERE = "no"

#: name of the constraint: (row to copy, what to change in the copy). "other_…" names another row.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "project_slug_in_workspace": ("project", {}),
    "project_overlap_1_to_100": ("project", {"slug": "new", "overlap": 101}),
    "project_lease_at_least_10_s": ("project", {"slug": "new", "lease_s": 9}),
    "project_state": ("project", {"slug": "new", "state": NOWHERE}),
    "project_kind": ("project", {"slug": "new", "kind": NOWHERE}),
    "project_repeats_every_second_at_most": ("project", {"slug": "new", "repeat_every": 1}),
    "project_repeats_after_another": ("project", {"slug": "new", "repeat_after": 0}),
    "topic_once_per_prompt": ("topic", {}),
    "topic_has_a_name": ("topic", {"name": ""}),
    "guideline_version_once": ("guideline", {}),
    "annotator_once_per_member": ("member", {}),
    "annotator_once_per_external_name": ("imported", {}),
    "annotator_is_a_member_or_external": ("imported", {"external_name": ""}),
    "prompt_once_per_workspace": ("prompt", {}),
    "prompt_set_version_once": ("prompt_set", {}),
    "prompt_set_use": ("prompt_set", {"version": 2, "use": NOWHERE}),
    "prompt_once_per_set": ("entry", {"position": 1}),
    "position_once_per_set": ("entry", {"prompt": "other_prompt"}),
    "response_once_per_prompt": ("response", {}),
    "response_origin_once": ("origin", {}),
    "response_origin_kind": ("origin", {"kind": NOWHERE}),
    "comparison_once_per_project": ("comparison", {}),
    "comparison_fills_a_before_b": ("comparison", {"digest": "new", "response_a": None}),
    "comparison_of_a_group_is_a_pair_nobody_is_served": (
        "comparison",
        {"digest": "new", "group": "other_comparison"},
    ),
    "candidate_position_once": ("candidate", {"response": "other_response"}),
    "candidate_response_once": ("candidate", {"position": 1}),
    "comparison_known_label_of_a_text": ("comparison", {"digest": "new", "known_label": "spam"}),
    "comparison_of_two_different_responses": (
        "comparison",
        {"digest": "new", "response_a": "response", "response_b": "response"},
    ),
    "comparison_propensity": ("comparison", {"digest": "new", "propensity": 0.0}),
    "assignment_once_per_annotator": ("assignment", {"state": "skipped"}),
    "assignment_state": ("assignment", {"annotator": "imported", "state": NOWHERE}),
    "assignment_skip_reason": ("assignment", {"annotator": "imported", "skip_reason": "other"}),
    "flag_once_per_kind_and_annotator": ("flag", {}),
    "flag_kind": ("flag", {"kind": NOWHERE}),
    "participation_once_per_person": ("participation", {}),
    "participation_consent_has_a_time": (
        "participation",
        {"annotator": "imported", "consent_version": 1},
    ),
    "participation_search_is_whole": (
        "participation",
        {"annotator": "imported", "search_priority": 1},
    ),
    "report_says_something": ("report", {"text": ""}),
    "judge_version_once": ("judge", {"digest": "new"}),
    "judge_digest_once": ("judge", {"version": 2}),
    "machine_judgment_once_per_judge": ("machine_judgment", {}),
    "machine_judgment_answer": (
        "machine_judgment",
        {"comparison": "other_comparison", "answer": NOWHERE},
    ),
    "machine_judgment_flip_is_a_tie": (
        "machine_judgment",
        {"comparison": "other_comparison", "flipped": True},
    ),
    "machine_judgment_probability": (
        "machine_judgment",
        {"comparison": "other_comparison", "probability": 1.5},
    ),
    "judgment_key_once_per_annotator": ("judgment", {"comparison": "other_comparison"}),
    "judgment_one_chain_per_annotator": ("judgment", {"idempotency_key": "new"}),
    "judgment_answer": ("judgment", {"comparison": "other_comparison", "answer": NOWHERE}),
    "judgment_label_is_named": (
        "judgment",
        {"comparison": "other_comparison", "idempotency_key": "new", "answer": "label"},
    ),
    "judgment_strength_goes_with_its_side": (
        "judgment",
        {"comparison": "other_comparison", "idempotency_key": "new", "strength": 1},
    ),
    "judgment_withdrawal_supersedes": (
        "judgment",
        {"comparison": "other_comparison", "idempotency_key": "new", "answer": "withdrawn"},
    ),
    "preference_once_per_aggregation": ("preference", {}),
    "preference_probability": (
        "preference",
        {"comparison": "other_comparison", "probability": 1.01},
    ),
    "preference_outcome": ("preference", {"comparison": "other_comparison", "outcome": NOWHERE}),
    "preference_label_is_named": (
        "preference",
        {"comparison": "other_comparison", "outcome": "label"},
    ),
    "snapshot_number_once": ("snapshot", {}),
    "snapshot_row_once": ("snapshot_row", {"position": 1}),
    "snapshot_row_position": ("snapshot_row", {"digest": "new"}),
    "snapshot_row_split": ("snapshot_row", {"digest": "new", "position": 1, "split": "dev"}),
    "version_once_per_workspace": ("version", {}),
    "version_is_a_base_an_adapter_or_a_model": ("version", {"digest": "new", "kind": "policy"}),
    "text_set_version_once": ("text_set", {}),
    "text_set_not_empty": ("text_set", {"version": 2, "n_train": 0}),
    "text_set_kind": ("text_set", {"version": 2, "kind": "poems"}),
    "text_document_position_once": ("text_document", {}),
    "version_state": ("version", {"digest": "new", "state": NOWHERE}),
    "round_number_once": ("round", {}),
    "round_launched_once": ("launched_round", {"number": 3}),
    "round_method": ("round", {"number": 2, "method": "bad"}),
    "round_state": ("round", {"number": 2, "state": NOWHERE}),
    "run_method": ("run", {"folder": "new", "method": NOWHERE}),
    "run_launched_once": ("launched_run", {"folder": "new"}),
    "run_of_a_round_reads_its_snapshot": (
        "launched_run",
        {"folder": "new", "launch_key": "new", "round": "round", "snapshot": "snapshot"},
    ),
    "run_event_once": ("run_event", {}),
    "run_metric_once": ("run_metric", {}),
    "calibration_device": ("calibration", {"run": "other_run", "device": NOWHERE}),
    "calibration_above_0": ("calibration", {"run": "other_run", "measured_mb": 0.0}),
    "job_state": ("job", {"run": "other_run", "state": NOWHERE}),
    "job_token_and_lease_iff_running": ("job", {"run": "other_run", "state": "running"}),
    "job_run_iff_kind_run": ("job", {"run": None}),
    "job_attempt_number_once": ("attempt", {"token": uuid4()}),
    "job_attempt_one_open": ("open_attempt", {"number": 3, "token": uuid4()}),
    "job_attempt_ended_iff_outcome": (
        "attempt",
        {"number": 3, "token": uuid4(), "outcome": ""},
    ),
    "run_checkpoint_once": ("run_checkpoint", {"attempt": 2}),
    "sample_once": ("sample", {}),
    "user_email_unique_in_any_case": ("user", {"email": "BOB@EXAMPLE.ORG"}),
    "membership_once": ("membership", {}),
    "membership_role": ("membership", {"workspace": "elsewhere", "role": NOWHERE}),
}


@pytest.fixture
def rows(people: People) -> Rows:
    """One sound row of every table that has a constraint."""
    workspace = people.workspace
    project = make_project(workspace)
    prompt, other_prompt = make_prompt(workspace, "one"), make_prompt(workspace, "two")
    comparison = make_comparison(project, "one")
    response = comparison.response_a
    member = make_annotator(workspace, people.bob)
    prompt_set = PromptSet.objects.create(workspace=workspace, name="fresh", use="fresh")
    judgment = make_judgment(comparison, member)
    judge = JudgeVersion.objects.create(
        workspace=workspace, name="strict", version=1, rubric="Be strict.", settings={}, digest="j"
    )
    machine_judgment = MachineJudgment.objects.create(
        workspace=workspace,
        judge=judge,
        comparison=comparison,
        answer="a",
        flipped=False,
        a_first="a",
        b_first="a",
    )
    aggregation = Aggregation.objects.create(workspace=workspace, project=project, rule={})
    preference = Preference.objects.create(
        workspace=workspace,
        aggregation=aggregation,
        comparison=comparison,
        outcome="a",
        probability=1.0,
        n_a=1,
        n_b=0,
        n_tie=0,
        n_both_bad=0,
    )
    snapshot = Snapshot.objects.create(
        workspace=workspace,
        project=project,
        aggregation=aggregation,
        number=1,
        rule={},
        sha256="s",
        n_train=1,
        n_test=0,
    )
    version = ModelVersion.objects.create(
        workspace=workspace, kind="base", name="base", base={}, digest="d"
    )
    turn = Round.objects.create(
        workspace=workspace,
        project=project,
        number=1,
        snapshot=snapshot,
        method="dpo",
        reference=version,
        fresh_prompts=prompt_set,
    )
    run, other_run = (
        Run.objects.create(
            workspace=workspace, method="dpo", config={}, folder=folder, version=version
        )
        for folder in ("one", "two")
    )
    job = Job.objects.create(workspace=workspace, kind="run", queue="training", run=run)
    launched_run = Run.objects.create(
        workspace=workspace,
        method="sft",
        config={},
        folder="three",
        version=version,
        launch_key="once",
    )
    text_set = TextSet.objects.create(
        workspace=workspace, name="texts", sha256="t", n_train=1, n_held_out=0, size_bytes=1
    )
    launched = copy.copy(turn)
    launched.pk, launched.number, launched.launch_key = None, 2, "once"
    launched.save()
    return {
        "launched_round": launched,
        "launched_run": launched_run,
        "text_set": text_set,
        "text_document": TextDocument.objects.create(
            text_set=text_set, position=0, text="a", held_out=False
        ),
        "attempt": make_attempt(job, 1),
        "open_attempt": make_attempt(job, 2, ended_at=None),
        "calibration": RunCalibration.objects.create(
            run=run, device="cpu", planned_mb=1.0, measured_mb=1.0
        ),
        "run_checkpoint": RunCheckpoint.objects.create(run=run, attempt=1, step=1, path="a"),
        "elsewhere": people.elsewhere,
        "user": people.bob,
        "membership": Membership.objects.get(user=people.bob),
        "project": project,
        "guideline": project.guidelines.get(),
        "member": member,
        "imported": make_annotator(workspace, name="someone"),
        "prompt": prompt,
        "other_prompt": other_prompt,
        "prompt_set": prompt_set,
        "topic": PromptTopic.objects.create(prompt=prompt, name="violence"),
        "entry": PromptSetEntry.objects.create(prompt_set=prompt_set, prompt=prompt, position=0),
        "response": response,
        "origin": ResponseOrigin.objects.create(response=response, kind="import", reference="x"),
        "comparison": comparison,
        "candidate": Candidate.objects.create(comparison=comparison, response=response, position=0),
        "other_response": make_response(prompt, "another"),
        "other_comparison": make_comparison(project, "two"),
        "assignment": Assignment.objects.create(
            workspace=workspace,
            comparison=comparison,
            annotator=member,
            swapped=False,
            expires_at=timezone.now(),
        ),
        "flag": Flag.objects.create(
            workspace=workspace, comparison=comparison, annotator=member, kind="broken"
        ),
        "participation": Participation.objects.create(
            workspace=workspace, project=project, annotator=member
        ),
        "report": Report.objects.create(
            workspace=workspace, project=project, annotator=member, text="too much"
        ),
        "judge": judge,
        "machine_judgment": machine_judgment,
        "judgment": judgment,
        "preference": preference,
        "snapshot": snapshot,
        "snapshot_row": SnapshotRow.objects.create(
            snapshot=snapshot,
            preference=preference,
            split="train",
            digest="d",
            position=0,
            content="{}",
        ),
        "version": version,
        "round": turn,
        "run": run,
        "other_run": other_run,
        "run_event": RunEvent.objects.create(
            run=run, attempt=1, seq=1, kind="progress", at=timezone.now(), body={}
        ),
        "run_metric": RunMetric.objects.create(run=run, name="loss", step=1, value=0, attempt=1),
        "job": job,
        "sample": Sample.objects.create(
            workspace=workspace,
            run=run,
            version=version,
            prompt=prompt,
            response=make_response(prompt, "sampled"),
            index=0,
            seed=0,
            finished=True,
            tokens=1,
        ),
    }


def insert_copy(row: models.Model, changes: dict[str, Any]) -> None:
    new = copy.copy(row)
    new.pk = None
    for field, value in changes.items():
        setattr(new, field, value)
    with transaction.atomic():
        new.save(force_insert=True)


def constraints() -> dict[str, models.BaseConstraint]:
    return {
        constraint.name: constraint
        for app in ("accounts", "annotate", "training")
        for model in apps.get_app_config(app).get_models(include_auto_created=True)
        for constraint in model._meta.constraints
    }


def test_every_constraint_of_the_models_has_a_case() -> None:
    assert set(CASES) == set(constraints())


@pytest.mark.parametrize("name", CASES)
def test_the_database_refuses(rows: Rows, name: str) -> None:
    source, changes = CASES[name]
    meant = {
        field: rows[value] if isinstance(value, str) and value in rows else value
        for field, value in changes.items()
    }
    with pytest.raises(IntegrityError) as refused:
        insert_copy(rows[source], meant)
    # SQLite names the columns of a unique constraint, not the constraint.
    unique = isinstance(constraints()[name], models.UniqueConstraint)
    expected = "UNIQUE" if unique and connection.vendor == "sqlite" else name
    assert expected in str(refused.value)
