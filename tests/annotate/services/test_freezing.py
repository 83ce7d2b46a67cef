from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from annotate.errors import AnnotateError, NothingToFreeze
from annotate.models import Aggregation, Project, Snapshot
from annotate.services.aggregation import aggregate_project
from annotate.services.freezing import freeze_snapshot, in_test
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People

#: SHA-256 of the snapshot of `judge_pairs`; the same on every database, machine and day.
GOLDEN = "7d67147576858a57f914f171e1f5b656ae4499aaaee4a1aaabc0e2aee723ca7d"


@pytest.fixture
def project(people: People) -> Project:
    return make_project(people.workspace)


def judge_pairs(project: Project, prompts: int = 20, answers: tuple[str, ...] = ("a",)) -> None:
    for number in range(prompts):
        for version in ("", " again"):
            comparison = make_comparison(
                project, f"Question {number}?", a=f"Yes{version}. 好", b=f"No{version}.\u2028"
            )
            for place, answer in enumerate(answers):
                annotator = make_annotator(project.workspace, name=f"secret person {place}")
                make_judgment(comparison, annotator, answer, rationale="secret thought")


def contents(snapshot: Snapshot) -> list[dict[str, Any]]:
    return [{**json.loads(row.content), "split": row.split} for row in snapshot.rows.all()]


def test_decided_pairs_become_rows_split_by_prompt(people: People, project: Project) -> None:
    judge_pairs(project)
    snapshot = freeze_snapshot(project=project, actor=people.rita)
    assert (snapshot.number, snapshot.created_by) == (1, people.rita)
    assert snapshot.n_train + snapshot.n_test == 40
    assert snapshot.n_test > 0
    rows = contents(snapshot)
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["prompt_id"], set()).add(row["split"])
    assert len(sides) == 20
    assert all(len(splits) == 1 for splits in sides.values())
    assert sum(row["split"] == "test" for row in rows) == snapshot.n_test


def test_a_row_says_what_was_preferred_and_how_surely(project: Project) -> None:
    judge_pairs(project, answers=("b", "b", "tie"))
    row = next(row for row in contents(freeze_snapshot(project=project)) if "again" in str(row))
    assert row["prompt"][0]["role"] == "user"
    assert row["chosen"] == [{"role": "assistant", "content": "No again.\u2028"}]
    assert row["rejected"] == [{"role": "assistant", "content": "Yes again. 好"}]
    assert row["probability"] == 0.833333
    assert row["n_judgments"] == 3
    assert set(row) == {
        "id", "prompt_id", "prompt", "chosen", "rejected", "probability", "n_judgments", "split"
    }  # fmt: skip


def test_nothing_in_a_row_tells_who_judged_or_what_they_wrote(project: Project) -> None:
    judge_pairs(project)
    snapshot = freeze_snapshot(project=project)
    everything = json.dumps([contents(snapshot), snapshot.summary, snapshot.rule])
    assert "secret" not in everything


def test_the_hash_is_that_of_the_canonical_lines_in_the_order_of_their_digests(
    project: Project,
) -> None:
    judge_pairs(project)
    snapshot = freeze_snapshot(project=project)
    rows = list(snapshot.rows.all())
    for row in rows:
        value = json.loads(row.content)
        canonical = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        assert row.content == canonical
        assert row.digest == hashlib.sha256(row.content.encode()).hexdigest()
    assert [row.position for row in rows] == list(range(len(rows)))
    ordered = sorted(rows, key=lambda row: bytes.fromhex(row.digest))
    assert ordered == rows
    lines = "".join(f"{row.content}\n" for row in rows)
    assert snapshot.sha256 == hashlib.sha256(lines.encode()).hexdigest()


def test_the_hash_is_the_same_on_every_database(project: Project) -> None:
    judge_pairs(project, answers=("a", "b", "b"))
    assert freeze_snapshot(project=project).sha256 == GOLDEN


def test_the_hash_does_not_depend_on_ids_names_or_the_order_of_arrival(people: People) -> None:
    # In two workspaces, since the salt of the split is the project's short name.
    one, two = (make_project(place, slug="one") for place in (people.workspace, people.elsewhere))
    judge_pairs(one)
    for number in reversed(range(20)):
        for version in (" again", ""):
            comparison = make_comparison(
                two, f"Question {number}?", a=f"Yes{version}. 好", b=f"No{version}.\u2028"
            )
            make_judgment(comparison, make_annotator(people.elsewhere, name="another"), "a")
    assert freeze_snapshot(project=one).sha256 == freeze_snapshot(project=two).sha256


def test_ties_and_hopeless_pairs_are_left_out_and_counted(project: Project) -> None:
    judge_pairs(project)
    annotator = make_annotator(project.workspace, name="someone")
    for number, answer in enumerate(["tie", "tie", "both_bad", "a"]):
        pair = ("", "  \n") if answer == "a" else ("x", "y")
        comparison = make_comparison(project, f"Left out {number}", a=pair[0], b=pair[1])
        make_judgment(comparison, annotator, answer)
    snapshot = freeze_snapshot(project=project)
    assert snapshot.summary["left_out"] == {"both_bad": 1, "both_empty": 1, "tie": 2}
    assert snapshot.n_train + snapshot.n_test == 40
    assert "Left out" not in str(contents(snapshot))


def test_one_empty_response_is_kept(project: Project) -> None:
    judge_pairs(project)
    comparison = make_comparison(project, "Say nothing.", a="", b="Something.")
    make_judgment(comparison, make_annotator(project.workspace, name="someone"), "a")
    rows = contents(freeze_snapshot(project=project))
    assert [row["chosen"] for row in rows if "Say nothing." in str(row["prompt"])] == [
        [{"role": "assistant", "content": ""}]
    ]


def test_a_prompt_keeps_its_side_when_more_is_judged_later(project: Project) -> None:
    judge_pairs(project, prompts=20)
    first = {row["prompt_id"]: row["split"] for row in contents(freeze_snapshot(project=project))}
    annotator = make_annotator(project.workspace, name="someone")
    for number in range(20, 40):
        make_judgment(make_comparison(project, f"Question {number}?"), annotator)
    second = {row["prompt_id"]: row["split"] for row in contents(freeze_snapshot(project=project))}
    assert len(second) == 40
    assert first.items() <= second.items()


def test_the_held_out_share_is_what_was_asked_for() -> None:
    digests = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(4000)]
    for share in (0.1, 0.2, 0.5):
        held_out = sum(in_test(digest, salt="s", test_fraction=share) for digest in digests)
        # Four standard deviations of a binomial share on 4,000 draws are at most 0.032.
        assert held_out / 4000 == pytest.approx(share, abs=0.032)


def test_a_second_snapshot_leaves_the_first_as_it_is(project: Project) -> None:
    judge_pairs(project)
    first = freeze_snapshot(project=project)
    before = list(first.rows.values())
    comparison = make_comparison(project, "One more?")
    make_judgment(comparison, make_annotator(project.workspace, name="someone"), "b")
    second = freeze_snapshot(project=project)
    assert (second.number, second.n_train + second.n_test) == (2, 41)
    assert list(first.rows.values()) == before
    assert first.sha256 != second.sha256


def test_judgments_are_aggregated_again_only_where_some_came_since(project: Project) -> None:
    judge_pairs(project)
    aggregation = aggregate_project(project=project)
    assert freeze_snapshot(project=project).aggregation == aggregation
    comparison = make_comparison(project, "One more?")
    make_judgment(comparison, make_annotator(project.workspace, name="someone"), "b")
    assert freeze_snapshot(project=project).aggregation != aggregation
    assert freeze_snapshot(project=project, aggregation=aggregation).aggregation == aggregation
    assert Aggregation.objects.count() == 2


def test_without_decided_pairs_there_is_nothing_to_freeze(project: Project) -> None:
    with pytest.raises(NothingToFreeze, match="no train rows: 0 of 0 judged"):
        freeze_snapshot(project=project)
    judge_pairs(project, answers=("tie",))
    with pytest.raises(NothingToFreeze, match="0 of 40 judged comparisons are usable"):
        freeze_snapshot(project=project)
    assert not Snapshot.objects.exists()
    assert not Aggregation.objects.exists()


@pytest.mark.parametrize(
    ("fraction", "reason"),
    [(0.000001, "no test rows"), (0.999999, "no train rows")],
)
def test_both_splits_need_rows(project: Project, fraction: float, reason: str) -> None:
    judge_pairs(project)
    with pytest.raises(NothingToFreeze, match=reason):
        freeze_snapshot(project=project, test_fraction=fraction)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_an_impossible_share_is_refused(project: Project, fraction: float) -> None:
    with pytest.raises(AnnotateError, match="test fraction is"):
        freeze_snapshot(project=project, test_fraction=fraction)


def test_an_aggregation_of_another_project_is_refused(people: People, project: Project) -> None:
    other = make_project(people.workspace, slug="other")
    judge_pairs(other)
    with pytest.raises(AnnotateError, match="is of another project"):
        freeze_snapshot(project=project, aggregation=aggregate_project(project=other))
