from __future__ import annotations

import pytest

from annotate.models import Comparison, Preference, Project
from annotate.services.aggregation import aggregate_project
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People


@pytest.fixture
def project(people: People) -> Project:
    return make_project(people.workspace)


def judged(project: Project, *answers: str, prompt: str = "What is red?") -> Comparison:
    comparison = make_comparison(project, prompt)
    for number, answer in enumerate(answers):
        annotator = make_annotator(project.workspace, name=f"person {number}")
        make_judgment(comparison, annotator, answer)
    return comparison


@pytest.mark.parametrize(
    ("answers", "outcome", "probability"),
    [
        (["a"], "a", 1.0),
        (["b", "b", "a"], "b", 1 / 3),
        (["a", "a", "tie"], "a", 2.5 / 3),
        (["a", "tie", "tie"], "tie", 2 / 3),
        # Nobody is ahead, or ties outnumber both: an honest tie, whatever the probability says.
        (["a", "b"], "tie", 0.5),
        (["a", "tie"], "a", 0.75),
        (["a", "b", "tie"], "tie", 0.5),
        (["a", "a", "b", "b", "tie"], "tie", 0.5),
        # Both bad says nothing of which is better; it is the outcome where most say it.
        (["both_bad", "both_bad"], "both_bad", 0.5),
        (["both_bad", "both_bad", "a"], "both_bad", 1.0),
        (["both_bad", "a"], "a", 1.0),
        (["both_bad", "a", "b"], "tie", 0.5),
    ],
)
def test_the_majority_of_the_answers(
    project: Project, answers: list[str], outcome: str, probability: float
) -> None:
    comparison = judged(project, *answers)
    preference = aggregate_project(project=project).preferences.get()
    assert preference.comparison == comparison
    assert (preference.outcome, preference.probability) == (outcome, pytest.approx(probability))
    assert (preference.n_a, preference.n_b, preference.n_tie, preference.n_both_bad) == tuple(
        answers.count(answer) for answer in ("a", "b", "tie", "both_bad")
    )
    assert preference.judgments.count() == len(answers)


def test_swapping_a_and_b_mirrors_the_belief(project: Project) -> None:
    judged(project, "a", "a", "tie", prompt="one")
    judged(project, "b", "b", "tie", prompt="two")
    one, two = aggregate_project(project=project).preferences.order_by("comparison")
    assert (one.outcome, two.outcome) == ("a", "b")
    assert one.probability + two.probability == pytest.approx(1)


def test_only_the_answers_that_stand_count(project: Project) -> None:
    comparison = judged(project, "a", "a")
    first, second = comparison.judgments.order_by("pk")
    make_judgment(comparison, first.annotator, "b", supersedes=first)
    make_judgment(comparison, second.annotator, "withdrawn", supersedes=second)
    preference = aggregate_project(project=project).preferences.get()
    assert (preference.outcome, preference.n_a, preference.n_b) == ("b", 0, 1)


def test_comparisons_that_nobody_judged_have_no_preference(project: Project) -> None:
    make_comparison(project)
    aggregation = aggregate_project(project=project)
    assert aggregation.preferences.count() == 0
    assert aggregation.summary["comparisons"] == 0
    assert aggregation.summary["agreement"]["reason"] == "there are no judgments yet"


def test_a_later_pass_leaves_the_earlier_one_as_it_is(project: Project) -> None:
    judged(project, "a", prompt="one")
    first = aggregate_project(project=project)
    judged(project, "b", prompt="two")
    second = aggregate_project(project=project)
    assert first.preferences.count() == 1
    assert second.preferences.count() == 2


def test_the_rule_and_the_counts_are_stored(project: Project) -> None:
    judged(project, "a", "a", prompt="one")
    judged(project, "a", "b", prompt="two")
    aggregation = aggregate_project(project=project)
    aggregation.refresh_from_db()
    assert aggregation.rule["name"] == "majority"
    assert "tie where these are equal or ties outnumber both" in aggregation.rule["outcome"]
    summary = aggregation.summary
    outcomes = {name: summary[name] for name in ("a", "b", "tie", "both_bad")}
    assert outcomes == {"a": 1, "b": 0, "tie": 1, "both_bad": 0}
    assert (summary["judgments"], summary["comparisons"]) == (4, 2)
    # o_aa = 2, o_ab = o_ba = 1, n = 4: D_o = 2/4, D_e = 2*3*1/(4*3), alpha = 0.
    assert summary["agreement"]["alpha"] == pytest.approx(0)


def test_other_projects_are_left_alone(people: People, project: Project) -> None:
    judged(make_project(people.workspace, slug="other"), "a")
    assert aggregate_project(project=project).preferences.count() == 0
    assert Preference.objects.count() == 0
