from __future__ import annotations

import pytest
from pytest_django import DjangoAssertNumQueries

from annotate.models import Comparison, Project
from annotate.selectors.quality import annotator_matrix, position_share, project_agreement
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People


@pytest.fixture
def project(people: People) -> Project:
    return make_project(people.workspace)


def judged(project: Project, number: int, answers: dict[str, str]) -> Comparison:
    comparison = make_comparison(project, f"Question {number}?")
    for name, answer in answers.items():
        make_judgment(comparison, make_annotator(project.workspace, name=name), answer)
    return comparison


def test_agreement_of_judgments_in_one_query(
    project: Project, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    # Units (a,a) (a,a) (b,b) (a,b): o_aa = 4, o_bb = 2, o_ab = o_ba = 1, n = 8, n_a = 5, n_b = 3;
    # alpha = 1 - 7 * 2 / (2 * 5 * 3) = 16/30.
    for number, (first, second) in enumerate(["aa", "aa", "bb", "ab"]):
        judged(project, number, {"ann": first, "ben": second})
    judged(project, 9, {"ann": "a"})
    with django_assert_num_queries(1):
        found = project_agreement(project=project)
    assert found.alpha == pytest.approx(16 / 30)
    # The fifth comparison, judged once, says nothing of agreement.
    assert (found.n_comparisons, found.n_judgments, found.n_annotators) == (4, 8, 2)


def test_agreement_that_cannot_be_told_has_a_reason(project: Project) -> None:
    assert project_agreement(project=project).reason == "there are no judgments yet"
    judged(project, 1, {"ann": "a"})
    found = project_agreement(project=project)
    assert (found.alpha, found.reason) == (None, "nothing was judged by two people yet")
    judged(project, 2, {"ann": "a", "ben": "a"})
    assert "everyone always gave the same answer" in project_agreement(project=project).reason


def test_superseded_answers_do_not_count(project: Project) -> None:
    comparison = judged(project, 1, {"ann": "a", "ben": "a"})
    judged(project, 2, {"ann": "a", "ben": "b"})
    first = comparison.judgments.get(annotator__external_name="ann")
    make_judgment(comparison, first.annotator, "b", supersedes=first)
    assert [pair.share for pair in annotator_matrix(project=project)] == [0]


def test_who_agrees_with_whom(
    project: Project, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    judged(project, 1, {"ann": "a", "ben": "a", "cat": "b"})
    judged(project, 2, {"ann": "a", "ben": "b"})
    with django_assert_num_queries(2):
        rows = annotator_matrix(project=project)
    assert [(str(row.first), str(row.second), row.n, row.share) for row in rows] == [
        ("ann", "ben", 2, 0.5),
        ("ann", "cat", 1, 0.0),
        ("ben", "cat", 1, 0.0),
    ]
    # ann said a twice, ben a and b: P_o = 1/2 and P_e = 1/2.
    assert rows[0].kappa == pytest.approx(0)


def test_the_pull_of_the_left_side(
    project: Project, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    shown = [("a", False), ("b", True), ("a", True), ("tie", False), ("a", None)]
    for number, (answer, swapped) in enumerate(shown):
        comparison = make_comparison(project, f"Question {number}?")
        annotator = make_annotator(project.workspace, name="ann")
        make_judgment(comparison, annotator, answer, swapped=swapped)
    with django_assert_num_queries(1):
        share = position_share(project=project)
    assert (share.left, share.n) == (pytest.approx(2 / 3), 3)
    assert share.low < 2 / 3 < share.high


def test_no_share_of_no_judgments(project: Project) -> None:
    share = position_share(project=project)
    assert (share.left, share.n, share.low, share.high) == (None, 0, 0.0, 1.0)


def test_other_projects_do_not_count(people: People, project: Project) -> None:
    judged(make_project(people.workspace, slug="other"), 1, {"ann": "a", "ben": "b"})
    assert project_agreement(project=project).n_judgments == 0
    assert annotator_matrix(project=project) == []


def test_two_people_of_one_name_are_two_people(project: Project, people: People) -> None:
    first, second = people.bob, people.rita
    for user in (first, second):
        user.name = "Kim"
        user.save(update_fields=["name"])
    comparison = make_comparison(project)
    for user, answer in ((first, "a"), (second, "b")):
        make_judgment(comparison, make_annotator(project.workspace, user), answer)
    (pair,) = annotator_matrix(project=project)
    assert {pair.first, pair.second} == {"Kim (bob@example.org)", "Kim (rita@example.org)"}
    assert (pair.share, pair.n) == (0, 1)
