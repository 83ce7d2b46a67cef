"""The engine's training rows: a snapshot's own, and what its judgments say beside them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from annotate.models import Annotator, Judgment, Project, Snapshot
from annotate.services.freezing import freeze_snapshot
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People
from tests.training.rows import make_round, make_run, make_version
from training.models import Run
from training.selectors.lineage import version_lineage, versions_taught_by
from training.services.engine_rows import held_out_lines, preference_lines
from training.services.folders import data_lines


@pytest.fixture
def project(people: People) -> Project:
    return make_project(people.workspace)


def judge(project: Project, prompt: str, *answers: str, **texts: str) -> Judgment:
    """Judgments of one new comparison, by ann0, ann1, …; returns the last."""
    comparison = make_comparison(project, prompt, **texts)
    made = [
        make_judgment(comparison, make_annotator(project.workspace, name=f"ann{place}"), answer)
        for place, answer in enumerate(answers)
        if answer
    ]
    return made[-1]


def frozen(project: Project) -> Snapshot:
    """A snapshot whose prompts "Question N?" are in both splits."""
    return freeze_snapshot(project=project, test_fraction=0.5)


def told(snapshot: Snapshot, *, ties: bool = False) -> list[dict[str, Any]]:
    return [json.loads(line) for line in preference_lines(snapshot=snapshot, ties=ties)]


def test_a_row_is_the_snapshots_with_weight_margin_and_ties_beside_it(project: Project) -> None:
    for number in range(20):
        judge(project, f"Question {number}?", "b", "b", "tie")
    snapshot = frozen(project)
    before = snapshot.sha256
    stored = [json.loads(row.content) for row in snapshot.rows.filter(split="train")]
    rows = told(snapshot)
    assert [{name: row[name] for name in stored[0]} for row in rows] == stored
    snapshot.refresh_from_db()
    assert snapshot.sha256 == before
    for row in rows:
        # three equal judges; two votes ahead of three, with two more supposed; one of three a tie
        assert row["weight"] == 3.0
        assert row["margin"] == 0.4
        assert row["tie"] == 0.333333
        assert row["probability"] == 0.833333
        assert set(row) == {*stored[0], "weight", "margin", "tie"}


def test_a_row_judged_by_a_coin_weighs_less(project: Project) -> None:
    # ann0 and ann1 agree on everything; ann2 on every other one
    for number in range(40):
        truth, coin = ("a", "b") if number % 2 else ("b", "a")
        third = truth if number % 4 < 2 else coin
        judge(project, f"Question {number}?", truth, truth, third)
    for number in range(40, 80):
        judge(project, f"Question {number}?", *(("a", "") if number % 2 else ("", "", "a")))
    by_judges: dict[int, set[float]] = {1: set(), 3: set()}
    for row in told(frozen(project)):
        by_judges[row["n_judgments"]].add(row["weight"])
    # near the 0.2 and 1.4 of tests/annotate/statistics/test_reliability.py: the answers that nobody
    # else gave only change what is chance
    low, high = sorted(by_judges[1])
    assert low < 0.5 < 1.0 < high
    (three,) = by_judges[3]
    assert three == pytest.approx(2 * high + low, abs=1e-5)


def test_ties_come_along_only_where_they_are_asked_for(project: Project) -> None:
    for number in range(20):
        judge(project, f"Question {number}?", "a")
        judge(project, f"Question {number}?", "tie", "tie", "a", a="same", b="same again")
        judge(project, f"Question {number}?", "a", "b", a="this", b="that")
        judge(project, f"Question {number}?", "both_bad", a="worse", b="worst")
    judge(project, "Empty?", "tie", a="", b=" ")
    snapshot = frozen(project)
    plain, with_ties = told(snapshot), told(snapshot, ties=True)
    assert with_ties[: len(plain)] == plain
    added = with_ties[len(plain) :]
    prompts = {row["prompt_id"] for row in plain}
    assert {row["prompt_id"] for row in added} == prompts, "held-out prompts stay held out"
    assert len(added) == 2 * len(plain)
    split = {(row["probability"], row["tie"], row.get("margin"), row["weight"]) for row in added}
    # two of three saw a tie and one a: P(b) is (2/2)/3; or one each, and no tie
    assert {facts[:3] for facts in split} == {(0.333333, 0.666667, None), (0.5, 0.0, None)}
    assert told(snapshot, ties=True) == with_ties


def test_the_engine_reads_what_is_written(project: Project) -> None:
    from training.engine.data import label_of

    for number in range(20):
        judge(project, f"Question {number}?", "a", "a", "tie")
        judge(project, f"Question {number}?", "tie", "tie", "b", a="this", b="that")
    labels = [label_of(row, "row") for row in told(frozen(project), ties=True)]
    assert {label.undecided for label in labels} == {False, True}
    assert all(label.margin == 0.4 for label in labels if not label.undecided)


@pytest.mark.parametrize("ties", ["skip", "davidson"])
def test_a_reward_run_gets_ties_if_its_config_uses_them_and_lineage_says_so(
    ties: str, project: Project
) -> None:
    for number in range(20):
        decided = judge(project, f"Question {number}?", "a")
        tied = judge(project, f"Question {number}?", "tie", a="this", b="that")
    snapshot = frozen(project)
    round = make_round(project, snapshot=snapshot)
    run = make_run(round, stage="reward")
    Run.objects.filter(pk=run.pk).update(config={"method": "reward", "reward": {"ties": ties}})
    run.refresh_from_db()
    rows = [json.loads(line) for line in data_lines(run)["train"]]
    n_tied = snapshot.n_train if ties == "davidson" else 0
    assert [("tie" in row) for row in rows].count(True) == n_tied
    assert "weight" not in data_lines(run)["test"][0]
    assert not any("weight" in line for line in data_lines(make_run(round, stage="sft"))["train"])

    version = make_version(project.workspace, "reward", kind="reward", run=run)
    assert versions_taught_by(decided) == [version]
    assert versions_taught_by(tied) == ([version] if ties == "davidson" else [])
    n_rows = snapshot.n_train + snapshot.n_test
    assert version_lineage(version).judgments == n_rows * (2 if ties == "davidson" else 1)


def test_held_out_rows_carry_what_each_person_said_and_no_name(project: Project) -> None:
    for number in range(20):
        judge(project, f"Question {number}?", "b", "a", "b")
    last = judge(project, "Question 0?", "b", "both_bad", "tie", a="this", b="that")
    model = Annotator.objects.create(
        workspace=project.workspace, kind=Annotator.Kind.MODEL, external_name="gpt"
    )
    make_judgment(last.comparison, model, "b")
    snapshot = frozen(project)
    lines = held_out_lines(snapshot=snapshot)
    stored = [json.loads(row.content) for row in snapshot.rows.filter(split="test")]
    rows = [json.loads(line) for line in lines]
    assert [{k: v for k, v in row.items() if k != "judgments"} for row in rows] == stored
    people = {a.pseudonym for a in Annotator.objects.filter(external_name__startswith="ann")}
    assert len(people) == 3
    for row in rows:
        assert {each["annotator"] for each in row["judgments"]} <= people
        if row["id"] != last.comparison.digest:
            said = [each["choice"] for each in row["judgments"]]
            assert said == ["chosen", "rejected", "chosen"]
    assert not any("ann0" in line for line in lines)


def test_a_pseudonym_holds_in_one_workspace_alone(people: People) -> None:
    ann = make_annotator(people.workspace, name="ann")
    again = Annotator.objects.get(pk=ann.pk)
    elsewhere = make_annotator(people.elsewhere, name="ann")
    assert ann.pseudonym == again.pseudonym
    assert ann.pseudonym != elsewhere.pseudonym


def test_what_a_person_said_of_a_pair_again_comes_along(project: Project) -> None:
    for number in range(20):
        judge(project, f"Question {number}?", "b", "a", "b")
    snapshot = frozen(project)
    row = snapshot.rows.filter(split="test").select_related("preference__comparison").first()
    assert row is not None
    comparison = row.preference.comparison
    ann = make_annotator(project.workspace, name="ann0")
    make_judgment(comparison, ann, "tie", is_repeat=True)
    lines = [json.loads(line) for line in held_out_lines(snapshot=snapshot)]
    by_pair = {line["id"]: line["judgments"] for line in lines}
    own = [
        each["choice"] for each in by_pair[comparison.digest] if each["annotator"] == ann.pseudonym
    ]
    assert own == ["chosen", "tie"]
    assert sum(map(len, by_pair.values())) == 3 * len(by_pair) + 1
