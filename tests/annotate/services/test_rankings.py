"""Rankings: groups from files, one answer that judges every pair, undone as one."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from annotate.errors import AnnotateError, ImportRefused, WrongKind
from annotate.models import Annotator, Answer, Assignment, Comparison, Judgment, Project
from annotate.selectors.quality import project_agreement
from annotate.services.aggregation import aggregate_project
from annotate.services.freezing import freeze_snapshot
from annotate.services.ingest import import_comparisons, store_response
from annotate.services.judging import submit_judgment, undo_judgment
from annotate.services.projects import update_project
from annotate.services.questions import screen_details
from annotate.services.rankings import import_rankings, ranking_from_ranks, shown_candidates
from annotate.services.serving import next_assignment
from tests.annotate.services.leases import overlap_holds
from tests.factories import make_annotator, make_project
from tests.people import People

TEXTS = ["best", "good", "poor", "worst"]


def write(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def rankings(people: People, tmp_path: Path, prompts: int = 1, **fields: object) -> Project:
    project = make_project(people.workspace, "ranked", kind="rankings", **fields)
    rows = [{"prompt": f"Question {n}?", "responses": TEXTS} for n in range(prompts)]
    import_rankings(project=project, path=write(tmp_path, *rows))
    return project


def places(assignment: Assignment) -> dict[str, int]:
    return {shown.text: shown.place for shown in shown_candidates(assignment)}


def rank(
    project: Project, annotator: Annotator, *tied: list[str], key: str = "k", **more: Any
) -> Judgment:
    """Lease the next ranking and order it by texts."""
    assignment = next_assignment(project=project, annotator=annotator)
    assert assignment is not None
    shown = places(assignment)
    return submit_judgment(
        assignment=assignment,
        annotator=annotator,
        answer="ranking",
        idempotency_key=key,
        details={"ranking": [[shown[text] for text in texts] for texts in tied]} | more,
        active_ms=1000,
    )


def standing(project: Project) -> dict[frozenset[str], str]:
    """{two texts: the better one, or "tie"} of all judgments of pairs that stand."""
    rows = Judgment.objects.current().filter(comparison__project=project, comparison__group__gt=0)
    found = {}
    for row in rows.select_related("comparison__response_a", "comparison__response_b"):
        a, b = row.comparison.pair
        better = {Answer.A: a.text, Answer.B: b.text}.get(Answer(row.answer), "tie")
        found[frozenset([a.text, b.text])] = better
    return found


def test_a_group_is_stored_once_with_every_pair_of_it(people: People, tmp_path: Path) -> None:
    project = rankings(people, tmp_path)
    again = import_rankings(project=project, path=tmp_path / "rows.jsonl")
    assert (again.rankings_new, again.rankings_seen) == (0, 1)
    ranking = Comparison.objects.get(project=project, group=None)
    assert ranking.candidates.count() == 4
    assert (ranking.slots, ranking.response_a) == (1, None)
    pairs = {frozenset(r.text for r in pair.pair) for pair in ranking.pairs.all()}
    assert pairs == {frozenset(two) for two in combinations(TEXTS, 2)}
    assert set(ranking.pairs.values_list("slots", flat=True)) == {0}


def test_an_order_judges_every_pair_and_is_stored_by_position(
    people: People, tmp_path: Path
) -> None:
    project = rankings(people, tmp_path)
    bob = make_annotator(people.workspace, people.bob)
    judgment = rank(project, bob, ["best"], ["good", "poor"], ["worst"])
    assert standing(project) == {
        frozenset(two): "tie" if set(two) == {"good", "poor"} else two[0]
        for two in combinations(TEXTS, 2)
    }
    stored = {row.position: row.response.text for row in judgment.comparison.candidates.all()}
    by_text = [sorted(stored[p] for p in tied) for tied in judgment.details["ranking"]]
    assert by_text == [["best"], ["good", "poor"], ["worst"]]
    assert judgment.assignment is not None
    shown = places(judgment.assignment)
    assert screen_details(judgment)["ranking"][0] == [shown["best"]]
    # What was seen first is on the left of a pair.
    for row in Judgment.objects.filter(comparison__group=judgment.comparison):
        a, b = row.comparison.pair
        assert row.swapped == (shown[b.text] < shown[a.text])
        assert row.active_ms is None
    assert overlap_holds(judgment.comparison)
    assert next_assignment(project=project, annotator=bob) is None


def test_what_has_no_place_is_in_no_pair(people: People, tmp_path: Path) -> None:
    project = rankings(people, tmp_path)
    rank(project, make_annotator(people.workspace, people.bob), ["best"], ["worst"])
    assert standing(project) == {frozenset(["best", "worst"]): "best"}


def test_undo_takes_all_of_it_back_and_another_order_follows(
    people: People, tmp_path: Path
) -> None:
    project = rankings(people, tmp_path)
    bob = make_annotator(people.workspace, people.bob)
    first = rank(project, bob, ["worst"], ["best"], ["good"], ["poor"])
    again = undo_judgment(project=project, annotator=bob, idempotency_key="u")
    assert again.comparison_id == first.comparison_id
    assert not Judgment.objects.current().exists()
    # Withdrawn once each, and a second undo of the same key changes nothing.
    undo_judgment(project=project, annotator=bob, idempotency_key="u")
    assert Judgment.objects.filter(answer=Answer.WITHDRAWN).count() == 7
    rank(project, bob, ["best"], ["good"], ["poor"], key="k2")
    assert standing(project) == {frozenset(two): two[0] for two in combinations(TEXTS[:3], 2)}
    assert overlap_holds(first.comparison)


def test_the_same_send_twice_is_one_ranking(people: People, tmp_path: Path) -> None:
    project = rankings(people, tmp_path)
    bob = make_annotator(people.workspace, people.bob)
    assignment = next_assignment(project=project, annotator=bob)
    assert assignment is not None
    send: dict[str, Any] = {"assignment": assignment, "annotator": bob, "answer": "ranking"}
    details = {"ranking": [[1], [2, 3, 4]]}
    for _ in range(2):
        submit_judgment(idempotency_key="k", details=details, **send)
    assert Judgment.objects.count() == 7


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        (None, "use a list of lists"),
        ([1, 2], "use a list of lists"),
        ([[1]], "two responses or more"),
        ([[1], [1, 2]], "response 1 has two places"),
        ([[1], [5]], "there is no response 5; use 1 to 4"),
        ([[0], [True]], "there is no response 0"),
    ],
)
def test_an_order_that_is_none_is_refused(
    people: People, tmp_path: Path, ranking: object, message: str
) -> None:
    project = rankings(people, tmp_path)
    bob = make_annotator(people.workspace, people.bob)
    assignment = next_assignment(project=project, annotator=bob)
    assert assignment is not None
    send: dict[str, Any] = {"assignment": assignment, "annotator": bob, "idempotency_key": "k"}
    with pytest.raises(AnnotateError, match=message):
        submit_judgment(answer="ranking", details={"ranking": ranking}, **send)
    with pytest.raises(AnnotateError, match='not "ranking"'):
        submit_judgment(answer="left", **send)
    assert not Judgment.objects.exists()


def test_agreement_belief_and_snapshot_see_pairs_alone(people: People, tmp_path: Path) -> None:
    project = rankings(people, tmp_path, prompts=6, overlap=2)
    for name in ("ann", "ben"):
        person = make_annotator(people.workspace, name=name)
        # Every other prompt the other way round: chance agreement needs two answers.
        while assignment := next_assignment(project=project, annotator=person):
            odd = int(assignment.comparison.prompt.messages[0]["content"][9]) % 2
            order = reversed(TEXTS) if odd else TEXTS
            rank(project, person, *([text] for text in order), key=f"k{assignment.pk}")
    found = project_agreement(project=project)
    assert (found.alpha, found.n_comparisons, found.n_judgments) == (1.0, 36, 72)
    aggregation = aggregate_project(project=project)
    assert aggregation.summary["judgments"] == 72
    assert aggregation.preferences.count() == 36
    snapshot = freeze_snapshot(project=project, test_fraction=0.5)
    assert snapshot.n_train + snapshot.n_test == 36
    row = json.loads(snapshot.rows.first().content)  # type: ignore[union-attr]
    order = [TEXTS.index(row[side][0]["content"]) for side in ("chosen", "rejected")]
    odd = int(row["prompt"][0]["content"][9]) % 2
    assert (order == sorted(order)) == (not odd)


def test_another_overlap_opens_groups_and_no_pairs(people: People, tmp_path: Path) -> None:
    project = rankings(people, tmp_path)
    rank(project, make_annotator(people.workspace, people.bob), ["best"], ["worst"])
    update_project(project=project, overlap=3)
    opened = Comparison.objects.filter(project=project, slots__gt=0)
    assert list(opened.values_list("group", "slots")) == [(None, 2)]


def test_nobody_ranks_what_they_wrote(people: People, tmp_path: Path) -> None:
    project = rankings(people, tmp_path)
    candidate = Comparison.objects.get(project=project, group=None).candidates.last()
    assert candidate is not None
    store_response(
        prompt=candidate.comparison.prompt, text=candidate.response.text, kind="person",
        reference="bob", author=people.bob,
    )  # fmt: skip
    bob = make_annotator(people.workspace, people.bob)
    assert next_assignment(project=project, annotator=bob) is None
    other = make_annotator(people.workspace, people.alice)
    assert next_assignment(project=project, annotator=other) is not None


def test_two_groups_may_share_two_responses(people: People, tmp_path: Path) -> None:
    project = rankings(people, tmp_path)
    row = {"prompt": "Question 0?", "responses": ["best", "good", "new", "newer"]}
    assert import_rankings(project=project, path=write(tmp_path, row)).rankings_new == 1
    assert Comparison.objects.filter(project=project, group__gt=0).count() == 12


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a?", "responses": TEXTS[:3]}, "3 responses; 4 to 9"),
        ({"prompt": "a?", "responses": [str(n) for n in range(10)]}, "10 responses; 4 to 9"),
        ({"prompt": "a?", "responses": [*TEXTS, "best"]}, "1 and 5 are the same text"),
        ({"prompt": "a?", "responses": [*TEXTS[:3], None]}, "response 4 is missing"),
        ({"prompt": "a?", "responses": "best"}, "not a list of texts"),
        ({"prompt": "a?"}, "responses is missing"),
        ({"responses": TEXTS}, "neither prompt nor instruction"),
        ({"prompt": " ", "responses": TEXTS}, "is empty"),
    ],
)
def test_a_row_that_cannot_be_ranked_names_its_line(
    people: People, tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    project = make_project(people.workspace, kind="rankings")
    good = {"instruction": "b?", "completions": [{"response": text} for text in TEXTS]}
    path = write(tmp_path, good, row)
    with pytest.raises(ImportRefused, match="1 of 2 rows") as refused:
        import_rankings(project=project, path=path)
    assert message in str(refused.value.bad_rows[0])
    assert refused.value.bad_rows[0].line == 2
    assert not Comparison.objects.exists()
    assert import_rankings(project=project, path=path, skip_bad=True).rankings_new == 1


def test_each_kind_takes_its_own_files(people: People, tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "a?", "responses": TEXTS})
    with pytest.raises(WrongKind, match="holds two responses only"):
        import_rankings(project=make_project(people.workspace), path=path)
    with pytest.raises(WrongKind, match="holds groups of responses only"):
        import_comparisons(
            project=make_project(people.workspace, "ranked", kind="rankings"), path=path
        )


def test_equal_numbers_tie() -> None:
    assert ranking_from_ranks({1: 2, 2: 1, 4: 2}) == [[2], [1, 4]]


def test_an_order_that_comes_along_judges_every_pair(people: People, tmp_path: Path) -> None:
    project = make_project(people.workspace, "ranked", kind="rankings", overlap=3)
    mixed = ["worst", "best", "poor", "good"]
    rows = [
        {"prompt": "One?", "responses": mixed, "ranks": [4, 1, 3, 2], "annotator": "expert"},
        {"prompt": "One?", "responses": TEXTS, "ranks": [1, 1, None, 2.5], "annotator": "lay"},
        {
            "prompt": "Two?",
            "completions": [{"response": t, "rank": n} for n, t in enumerate(TEXTS)],
        },
        {"prompt": "Three?", "completions": [{"response": t} for t in TEXTS]},
    ]
    path = write(tmp_path, *rows)
    report = import_rankings(project=project, path=path)
    assert (report.rankings_new, report.judgments_new, report.contradictions) == (3, 3, [])
    experts = Judgment.objects.filter(annotator__external_name="expert")
    assert experts.count() == 1 + 6
    said = {
        frozenset(r.text for r in row.comparison.pair): row
        for row in experts.exclude(answer="ranking").select_related("comparison")
    }
    for better, worse in combinations(TEXTS, 2):
        row = said[frozenset([better, worse])]
        a, b = row.comparison.pair
        assert {"a": a.text, "b": b.text}[row.answer] == better
        assert (row.swapped, row.assignment) == (None, None)
    lay = Judgment.objects.filter(annotator__external_name="lay")
    assert sorted(lay.values_list("answer", flat=True).exclude(answer="ranking")).count("tie") == 1
    assert lay.count() == 1 + 3
    assert Judgment.objects.filter(annotator__external_name="import:ranks").count() == 7
    # They fill places, as imported judgments of comparisons do.
    queued = Comparison.objects.filter(project=project, group=None)
    assert sorted(queued.values_list("slots", flat=True)) == [1, 2, 3]
    assert project_agreement(project=project).n_annotators == 2
    again = import_rankings(project=project, path=path)
    assert (again.judgments_new, again.judgments_seen) == (0, 3)
    other = write(tmp_path, {**rows[0], "ranks": [1, 2, 3, 4]})
    contradiction = import_rankings(project=project, path=other)
    assert [str(row) for row in contradiction.contradictions] == [
        "line 1: expert ranked these otherwise before"
    ]
    assert experts.count() == 7


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"ranks": [1, 2, 3]}, "not a list of 4 numbers"),
        ({"ranks": "1234"}, "not a list of 4 numbers"),
        ({"ranks": [1, 2, 3, "4"]}, "the rank of response 4 is '4', not a number"),
        ({"ranks": [1, 2, 3, True]}, "the rank of response 4 is True"),
        ({"ranks": [1, None, None, None]}, "fewer than two"),
        ({"ranks": [1, 2, 3, 4], "annotator": " "}, "annotator must have 1 to 200"),
    ],
)
def test_ranks_that_order_nothing_are_refused(
    people: People, tmp_path: Path, wrong: dict[str, Any], reason: str
) -> None:
    project = make_project(people.workspace, "ranked", kind="rankings")
    path = write(tmp_path, {"prompt": "One?", "responses": TEXTS, **wrong})
    with pytest.raises(ImportRefused, match=reason):
        import_rankings(project=project, path=path)
