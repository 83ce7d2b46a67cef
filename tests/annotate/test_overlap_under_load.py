"""The overlap changes while people judge: no place is lost and none is given twice."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from annotate.models import Annotator, Assignment, Comparison
from annotate.services.judging import submit_judgment
from annotate.services.projects import update_project
from annotate.services.serving import next_assignment
from rlhf_platform.accounts.models import Role
from tests.factories import make_annotator, make_comparison, make_project
from tests.people import make_member, make_people


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "postgresql", reason="row locks are PostgreSQL's")
def test_places_add_up_whatever_happens_at_once() -> None:
    people = make_people()
    project = make_project(people.workspace, overlap=3)
    for number in range(12):
        make_comparison(project, prompt=f"{number}?")
    judges = [
        make_annotator(people.workspace, make_member(people.workspace, f"j{n}", Role.ANNOTATOR))
        for n in range(4)
    ]
    failures: list[BaseException] = []

    def guarded(work: threading.Thread | object) -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    def judge(annotator: Annotator) -> None:
        for turn in range(12):
            assignment = next_assignment(project=project, annotator=annotator)
            if assignment is not None:
                key = f"{annotator.pk}-{turn}"
                submit_judgment(
                    assignment=assignment, annotator=annotator, answer="tie", idempotency_key=key
                )

    def change() -> None:
        for overlap in (1, 4, 2, 3, 1, 4) * 3:
            update_project(project=project, overlap=overlap)

    jobs = [lambda a=annotator: judge(a) for annotator in judges]
    threads = [threading.Thread(target=guarded, args=(work,)) for work in (*jobs, change)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for comparison in Comparison.objects.filter(project=project):
        held = comparison.assignments.filter(state__in=Assignment.HOLDING).count()
        assert comparison.slots == max(0, 4 - held), comparison
