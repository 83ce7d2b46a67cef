"""A machine's judgments: stored apart, refused for training until calibrated, then marked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from annotate.errors import AnnotateError, NotCalibrated
from annotate.export.card import dataset_card
from annotate.models import JudgeVersion, Judgment, MachineJudgment, Project
from annotate.selectors.quality import project_agreement
from annotate.services.aggregation import aggregate_project
from annotate.services.freezing import freeze_snapshot
from annotate.services.machine_judging import (
    accept_calibration,
    register_judge,
    store_machine_judgments,
)
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People

SETTINGS = {"model": "some-model", "how": "verdict"}
BY_PEOPLE, ALONE = 30, 12


@pytest.fixture
def project(people: People, settings: Any) -> Project:
    """30 comparisons that a person judged (A), and 12 that nobody did."""
    settings.JUDGE_CALIBRATION_ROWS = 20
    project = make_project(people.workspace)
    annotator = make_annotator(people.workspace, name="someone")
    for number in range(BY_PEOPLE + ALONE):
        comparison = make_comparison(project, prompt=f"Question {number}?")
        if number < BY_PEOPLE:
            make_judgment(comparison, annotator)
    return project


@pytest.fixture
def judge(people: People) -> JudgeVersion:
    return register_judge(
        workspace=people.workspace, name="strict", rubric="Be strict.", settings=SETTINGS
    )


def said(digest: str, first: str | None = "first", second: str | None = "first") -> dict[str, Any]:
    failed = None in (first, second)
    return {
        "id": digest,
        "choice": None if failed else first if first == second else "tie",
        "flipped": {first, second} == {"first", "second"},
        "failed": failed,
        "orders": [first, second],
        "probability": None,
        "reasons": ["Because.", "Because\x00."],
        "tokens": 12,
    }


def judge_all(project: Project, judge: JudgeVersion) -> None:
    digests = project.comparisons.order_by("pk").values_list("digest", flat=True)
    store_machine_judgments(judge=judge, project=project, rows=[said(d) for d in digests])


def test_the_same_judge_is_one_version_and_another_rubric_the_next(people: People) -> None:
    def register(rubric: str, **settings: Any) -> JudgeVersion:
        return register_judge(
            workspace=people.workspace, name="j", rubric=rubric, settings={**SETTINGS, **settings}
        )

    first = register("Be strict.")
    assert register("Be strict.") == first
    assert register("Be kind.").version == 2
    assert register("Be strict.", model="another").version == 3
    with pytest.raises(AnnotateError, match="no short name"):
        register_judge(workspace=people.workspace, name="a b", rubric="x", settings={})
    with pytest.raises(AnnotateError, match="is empty"):
        register(" ")


def test_what_a_machine_said_touches_nothing_of_people(
    project: Project, judge: JudgeVersion
) -> None:
    before = project_agreement(project=project)
    slots = list(project.comparisons.order_by("pk").values_list("slots", flat=True))
    judge_all(project, judge)
    assert MachineJudgment.objects.count() == BY_PEOPLE + ALONE
    assert Judgment.objects.count() == BY_PEOPLE
    assert project_agreement(project=project) == before
    assert list(project.comparisons.order_by("pk").values_list("slots", flat=True)) == slots
    assert aggregate_project(project=project).summary["comparisons"] == BY_PEOPLE


def test_rows_are_stored_once_all_or_none(project: Project, judge: JudgeVersion) -> None:
    one, two = project.comparisons.order_by("pk")[:2]

    def store(*rows: Any) -> int:
        return store_machine_judgments(judge=judge, project=project, rows=rows)

    assert store(said(one.digest, "first", "second")) == 1
    assert store(said(one.digest, "second", "second"), said(two.digest, None, "first")) == 1
    stored = MachineJudgment.objects.get(comparison=one)
    assert (stored.answer, stored.flipped, stored.a_first, stored.b_first) == (
        "tie", True, "a", "b",
    )  # fmt: skip
    assert "\x00" not in stored.reasons[1]
    assert MachineJudgment.objects.get(comparison=two).answer == "none"


@pytest.mark.parametrize(
    "change",
    [
        {"id": "elsewhere"},
        {"choice": "third"},
        {"choice": "second"},  # not what its orders say
        {"flipped": True},
        {"tokens": -1},
        {"probability": 2.0},
        {"reasons": [7]},
        {"orders": ["first"]},
    ],
)
def test_a_row_of_another_shape_is_refused_with_all(
    project: Project, judge: JudgeVersion, change: dict[str, Any]
) -> None:
    one, two = project.comparisons.order_by("pk")[:2]
    rows = [said(one.digest), said(two.digest) | change]
    with pytest.raises(AnnotateError, match="judgment 2 is not"):
        store_machine_judgments(judge=judge, project=project, rows=rows)
    assert not MachineJudgment.objects.exists()


def test_nobody_trains_on_a_machine_before_an_admin_accepts_it(
    project: Project, judge: JudgeVersion, people: People
) -> None:
    with pytest.raises(NotCalibrated, match="both judged 0 comparisons"):
        accept_calibration(judge=judge, project=project, actor=people.alice, reason="It agrees.")
    judge_all(project, judge)
    with pytest.raises(NotCalibrated, match="is not calibrated"):
        freeze_snapshot(project=project, test_fraction=0.5, judge=judge)
    with pytest.raises(AnnotateError, match="only an admin"):
        accept_calibration(judge=judge, project=project, actor=people.rita, reason="It agrees.")
    accepted = accept_calibration(
        judge=judge, project=project, actor=people.alice, reason="It agrees."
    )
    assert accepted.n == BY_PEOPLE
    assert accepted.figures["agreement"]["value"] == 1.0
    # accepted for one project and one version, not for others
    other = make_project(people.workspace, slug="other")
    with pytest.raises(NotCalibrated):
        freeze_snapshot(project=other, judge=judge)


def test_a_snapshot_marks_what_a_machine_judged_and_holds_none_of_it_out(
    project: Project, judge: JudgeVersion, people: People
) -> None:
    judge_all(project, judge)
    accept_calibration(judge=judge, project=project, actor=people.alice, reason="It agrees.")
    plain = freeze_snapshot(project=project, test_fraction=0.3)
    mixed = freeze_snapshot(project=project, test_fraction=0.3, judge=judge)
    again = freeze_snapshot(project=project, test_fraction=0.3)
    assert again.sha256 == plain.sha256  # people's snapshots do not see the machine's beliefs
    rows = [(row.split, json.loads(row.content)) for row in mixed.rows.all()]
    machine = [(split, row) for split, row in rows if "judged_by" in row]
    left_out = mixed.summary["left_out"].get("machine_held_out", 0)
    assert len(machine) == mixed.summary["by_machine"] == ALONE - left_out
    assert left_out > 0
    assert {split for split, _ in machine} == {"train"}
    assert all(row["judged_by"] == "machine:strict:v1" for _, row in machine)
    assert all(row["n_judgments"] == 0 for _, row in machine)
    assert mixed.n_test == plain.n_test
    card = dataset_card(mixed, "jsonl")
    assert f"**{len(machine)} rows were judged by a machine and by no person**" in card
    assert "agreed with people on 1.000" in card
    assert "- rlaif" in card
    assert "machine" not in dataset_card(plain, "jsonl")
    belief = mixed.rule["belief"]["machine"]
    assert (belief["judge"], belief["model"]) == ("strict v1", "some-model")


def test_a_persons_word_stands_before_a_machines(
    project: Project, judge: JudgeVersion, people: People
) -> None:
    digests = project.comparisons.values_list("digest", flat=True)
    rows = [said(digest, "second", "second") for digest in digests]
    store_machine_judgments(judge=judge, project=project, rows=rows)
    accept_calibration(judge=judge, project=project, actor=people.alice, reason="It agrees.")
    found = aggregate_project(project=project, judge=judge)
    outcomes = {p.machine_judgment_id is None: p.outcome for p in found.preferences.all()}
    assert outcomes == {True: "a", False: "b"}
    assert found.summary["by_machine"] == ALONE


def test_a_machines_words_are_history(project: Project, judge: JudgeVersion) -> None:
    judge_all(project, judge)
    for rows in (MachineJudgment.objects, JudgeVersion.objects):
        field = "answer" if rows is MachineJudgment.objects else "rubric"
        with pytest.raises(IntegrityError, match="is history"), transaction.atomic():
            rows.update(**{field: "b"})
    assert connection.vendor in ("sqlite", "postgresql")


def test_another_workspace_sees_and_stores_nothing(project: Project, people: People) -> None:
    elsewhere = make_project(people.elsewhere, slug="elsewhere")
    judge = register_judge(
        workspace=elsewhere.workspace, name="strict", rubric="x", settings=SETTINGS
    )
    with pytest.raises(AnnotateError, match="different workspaces"):
        store_machine_judgments(judge=judge, project=project, rows=[])
    with pytest.raises(AnnotateError, match="different workspaces"):
        accept_calibration(judge=judge, project=project, actor=people.alice, reason="It agrees.")
