"""Changing a project: versions of the guidelines, and places that follow the overlap."""

from __future__ import annotations

import pytest

from annotate.errors import AnnotateError
from annotate.models import Assignment, Comparison, Project
from annotate.services.judging import submit_judgment, undo_judgment
from annotate.services.projects import update_project
from annotate.services.serving import next_assignment
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People


def held(comparison: Comparison) -> int:
    leased_or_judged = comparison.assignments.filter(state__in=Assignment.HOLDING).count()
    return leased_or_judged + comparison.judgments.current().filter(assignment=None).count()


def test_it_changes_what_is_given_and_nothing_else(people: People) -> None:
    project = make_project(people.workspace)
    update_project(project=project, name=" Kind ", state="paused", allow_tie=False, lease_s=60)
    project = Project.objects.get(pk=project.pk)
    assert (project.name, project.state, project.lease_s) == ("Kind", "paused", 60)
    assert (project.allow_tie, project.allow_both_bad, project.overlap) == (False, True, 1)
    assert project.guidelines.count() == 1


def test_a_new_text_of_the_guidelines_is_a_new_version(people: People) -> None:
    project = make_project(people.workspace)
    update_project(project=project, guidelines="Be kind.")
    update_project(project=project, guidelines="Be kind.")
    assert list(project.guidelines.order_by("version").values_list("version", "text")) == [
        (1, "Prefer the more helpful answer."),
        (2, "Be kind."),
    ]


@pytest.mark.parametrize("overlap", [1, 2, 3, 5])
def test_places_follow_the_overlap_whatever_is_held(people: People, overlap: int) -> None:
    project = make_project(people.workspace, overlap=4)
    fresh, leased, judged, imported, full = (
        make_comparison(project, prompt=f"{n}?") for n in range(5)
    )
    bob, rita = (make_annotator(people.workspace, who) for who in (people.bob, people.rita))
    for comparison, priority in ((judged, 9), (leased, 8)):
        Comparison.objects.filter(pk=comparison.pk).update(priority=priority)
    first = next_assignment(project=project, annotator=bob)
    assert first is not None
    submit_judgment(assignment=first, annotator=bob, answer="left", idempotency_key="1")
    assert next_assignment(project=project, annotator=bob) is not None
    make_judgment(imported, make_annotator(people.workspace, name="import"))
    for name in "abcd":
        make_judgment(full, make_annotator(people.workspace, name=name))
    # An undone judgment leaves a lease: one place held, not two.
    taken = next_assignment(project=project, annotator=rita)
    assert taken is not None
    submit_judgment(assignment=taken, annotator=rita, answer="tie", idempotency_key="2")
    undo_judgment(project=project, annotator=rita, idempotency_key="3")

    update_project(project=project, overlap=overlap)
    for comparison in Comparison.objects.filter(project=project):
        assert comparison.slots == max(0, overlap - held(comparison)), comparison
    assert Comparison.objects.get(pk=fresh.pk).slots == overlap
    assert Comparison.objects.get(pk=full.pk).slots == max(0, overlap - 4)


def test_another_project_keeps_its_places(people: People) -> None:
    project, other = make_project(people.workspace), make_project(people.workspace, slug="other")
    kept = make_comparison(other)
    update_project(project=project, overlap=4)
    assert Comparison.objects.get(pk=kept.pk).slots == 1


@pytest.mark.parametrize(
    "asked", [{"overlap": 0}, {"overlap": 101}, {"lease_s": 9}, {"state": "shut"}, {"name": "  "}]
)
def test_it_refuses_what_no_project_can_have(people: People, asked: dict[str, object]) -> None:
    project = make_project(people.workspace)
    with pytest.raises(AnnotateError, match=r"allowed|none of|needs a name"):
        update_project(project=project, **asked)  # type: ignore[arg-type]
    assert Project.objects.get(pk=project.pk).overlap == 1
