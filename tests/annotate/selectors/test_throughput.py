from __future__ import annotations

from pytest_django import DjangoAssertNumQueries

from annotate.selectors.throughput import annotator_throughput
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People


def test_judgments_and_active_time_of_each_annotator(
    people: People, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    project = make_project(people.workspace)
    bob = make_annotator(people.workspace, people.bob)
    imported = make_annotator(people.workspace, name="pandalm:annotator1")
    for number, active_ms in enumerate([10_000, 20_000, 60_000, None]):
        comparison = make_comparison(project, f"Question {number}?")
        make_judgment(comparison, bob, active_ms=active_ms)
    make_judgment(comparison, imported)
    # An import carries no times, so its people have no pace.
    with django_assert_num_queries(2):
        rows = annotator_throughput(project=project)
    # Three timed judgments in 90 active seconds are 120 an hour.
    assert [(str(row.annotator), row.judgments, row.active_s) for row in rows] == [("Bob", 4, 90.0)]
    assert (rows[0].judgments_per_hour, rows[0].median_active_s) == (120.0, 20.0)


def test_a_time_of_zero_gives_no_rate(people: People) -> None:
    project = make_project(people.workspace)
    make_judgment(
        make_comparison(project), make_annotator(people.workspace, people.bob), active_ms=0
    )
    row = annotator_throughput(project=project)[0]
    assert (row.active_s, row.judgments_per_hour) == (0.0, None)


def test_other_projects_do_not_count(people: People) -> None:
    other = make_project(people.workspace, slug="other")
    make_judgment(make_comparison(other), make_annotator(people.workspace, people.bob))
    assert annotator_throughput(project=make_project(people.workspace)) == []
