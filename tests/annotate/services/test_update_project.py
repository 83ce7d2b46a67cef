"""Changing a project: versions of its guidelines, and places that follow the overlap."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest
from django.db import connection, connections  # noqa: F401 - the skip condition reads it

from annotate.errors import AnnotateError, OverlapInUse
from annotate.models import Annotator, Assignment, Comparison, Project
from annotate.services.ingest import open_comparison
from annotate.services.judging import submit_judgment, undo_judgment
from annotate.services.projects import update_project
from annotate.services.serving import next_assignment, skip_assignment
from tests.factories import (
    make_annotator,
    make_comparison,
    make_judgment,
    make_project,
    make_prompt,
    make_response,
)
from tests.people import People, make_people


def overlap_holds(project: Project) -> bool:
    for comparison in project.comparisons.all():
        held = comparison.assignments.filter(state__in=Assignment.HOLDING).count()
        imported = comparison.judgments.filter(assignment=None).count()
        if comparison.slots != max(0, project.overlap - held - imported):
            return False
    return True


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


@pytest.mark.parametrize("overlap", [2, 3, 5])
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
    assert overlap_holds(project)
    assert Comparison.objects.get(pk=fresh.pk).slots == overlap
    assert Comparison.objects.get(pk=full.pk).slots == max(0, overlap - 4)


def test_a_new_overlap_opens_and_closes_places(people: People) -> None:
    project = make_project(people.workspace, overlap=2)
    bob = make_annotator(people.workspace, people.bob)
    for number in range(4):
        make_comparison(project, prompt=f"{number}?")
    judged = next_assignment(project=project, annotator=bob)
    assert judged is not None
    submit_judgment(assignment=judged, annotator=bob, answer="tie", idempotency_key="k")
    skipped = next_assignment(project=project, annotator=bob)
    assert skipped is not None
    skip_assignment(assignment=skipped, annotator=bob)
    assert next_assignment(project=project, annotator=bob) is not None
    for overlap in (5, 1, 3, 1):
        update_project(project=project, overlap=overlap)
        assert project.overlap == overlap
        assert overlap_holds(project)
    undo_judgment(project=project, annotator=bob, idempotency_key="u")
    update_project(project=project, overlap=2)
    assert overlap_holds(project)


def test_what_is_judged_or_leased_is_not_taken_away(people: People) -> None:
    project = make_project(people.workspace, overlap=2)
    comparison = make_comparison(project)
    for user in (people.bob, people.rita):
        next_assignment(project=project, annotator=make_annotator(people.workspace, user))
    with pytest.raises(OverlapInUse, match="2 or more is possible"):
        update_project(project=project, overlap=1, name="Not this either")
    project.refresh_from_db()
    comparison.refresh_from_db()
    assert (project.overlap, project.name, comparison.slots) == (2, "Helpful", 0)


def test_imported_judgments_count_and_may_be_more_than_asked_for(people: People) -> None:
    project = make_project(people.workspace)
    comparison = make_comparison(project)
    for name in ("one", "two", "three"):
        make_judgment(comparison, make_annotator(people.workspace, name=name))
    Comparison.objects.update(slots=0)
    for overlap, slots in ((2, 0), (5, 2), (1, 0)):
        update_project(project=project, overlap=overlap)
        comparison.refresh_from_db()
        assert comparison.slots == slots


def test_other_projects_keep_their_places(people: People) -> None:
    project = make_project(people.workspace)
    other = make_comparison(make_project(people.workspace, slug="other"))
    update_project(project=project, overlap=9)
    other.refresh_from_db()
    assert other.slots == 1


@pytest.mark.parametrize(
    "change", [{"overlap": 0}, {"overlap": 101}, {"lease_s": 1}, {"state": "x"}, {"name": " "}]
)
def test_settings_out_of_range_are_refused(change: dict[str, object], people: People) -> None:
    project = make_project(people.workspace)
    with pytest.raises(AnnotateError):
        update_project(project=project, **change)  # type: ignore[arg-type]


@pytest.mark.django_db(transaction=True)
def test_places_stay_exact_while_people_judge_and_files_arrive() -> None:
    people = make_people()
    project = make_project(people.workspace, overlap=3)
    for number in range(8):
        make_comparison(project, prompt=f"{number}?")
    crowd = [make_annotator(people.workspace, name=f"person {n}") for n in range(4)]
    barrier = threading.Barrier(6)
    failures: list[BaseException] = []

    def judge(annotator: Annotator) -> None:
        for turn in range(12):
            held = next_assignment(project=project, annotator=annotator)
            if held is None:
                continue
            if turn % 3 == 2:
                skip_assignment(assignment=held, annotator=annotator)
            else:
                submit_judgment(
                    assignment=held, annotator=annotator, answer="tie", idempotency_key=str(turn)
                )

    def change() -> None:
        for overlap in (9, 5, 8, 4, 7, 6, 9, 5):
            update_project(project=Project.objects.get(pk=project.pk), overlap=overlap)

    def open_more() -> None:
        stale = Project.objects.get(pk=project.pk)  # as a long import would have read it
        for number in range(12):
            prompt = make_prompt(people.workspace, f"new {number}?")
            pair = [make_response(prompt, text) for text in "ab"]
            open_comparison(project=stale, first=pair[0], second=pair[1], origin="import")

    def one(work: Callable[[], None]) -> None:
        barrier.wait()
        try:
            work()
        except BaseException as error:  # told by the test itself
            failures.append(error)
        finally:
            connections.close_all()

    tasks = [partial(judge, annotator) for annotator in crowd]
    threads = [threading.Thread(target=one, args=(task,)) for task in (*tasks, change, open_more)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    project.refresh_from_db()
    assert project.overlap == 5
    assert project.comparisons.count() == 20
    assert overlap_holds(project)
