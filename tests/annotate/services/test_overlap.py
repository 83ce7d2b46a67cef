"""Overlap is exact: over random sequences of requests, and with eight people at once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotate.errors import AnnotateError
from annotate.models import Assignment, Comparison
from annotate.services.judging import submit_judgment, undo_judgment
from annotate.services.serving import expire_leases, next_assignment, skip_assignment
from tests.annotate.services.crowd import in_parallel, judge_everything, judge_the_last
from tests.annotate.services.leases import overlap_holds, run_out
from tests.factories import make_annotator, make_comparison, make_project
from tests.people import People, make_people

EXACT = {
    "errors": [],
    "judgments": 120,
    "repeated": 0,
    "per_comparison": [3],
    "open_slots": 0,
}
LAST = {
    "errors": [],
    "served": 3,
    "served again": 3,
    "judged by": 3,
    "judgments": 3,
    "overlap holds": True,
    "open_slots": 0,
}
STEPS = st.tuples(
    st.sampled_from(["lease", "submit", "late", "expire", "undo", "skip"]),
    st.integers(0, 2),
    st.integers(0, 5),
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    overlap=st.integers(1, 3),
    steps=st.lists(STEPS, max_size=25),
    repeats=st.sampled_from([None, 2]),
)
def test_no_place_is_lost_or_made_by_any_sequence_of_requests(
    people: People, overlap: int, steps: list[tuple[str, int, int]], repeats: int | None
) -> None:
    with transaction.atomic():
        project = make_project(
            people.workspace, overlap=overlap, repeat_every=repeats, repeat_after=1
        )
        comparisons = [make_comparison(project, prompt=f"{n}?") for n in range(4)]
        crowd = [make_annotator(people.workspace, name=f"person {n}") for n in range(3)]
        held: list[list[Assignment]] = [[] for _ in crowd]
        for number, (step, who, which) in enumerate(steps):
            person, key = crowd[who], f"{number}"
            chosen = held[who][which % len(held[who])] if held[who] else None
            try:
                if step == "lease":
                    served = next_assignment(project=project, annotator=person)
                    held[who] += [served] if served is not None else []
                elif step == "undo":
                    undo_judgment(project=project, annotator=person, idempotency_key=key)
                elif chosen is None:
                    continue
                elif step == "skip":
                    skip_assignment(assignment=chosen, annotator=person)
                elif step == "expire":
                    run_out(chosen)
                    expire_leases(project=project)
                else:
                    if step == "late":
                        run_out(chosen)
                    submit_judgment(
                        assignment=chosen, annotator=person, answer="left", idempotency_key=key
                    )
            except AnnotateError:
                pass
            assert all(overlap_holds(comparison) for comparison in comparisons)
        transaction.set_rollback(True)


def test_many_people_at_once_on_sqlite(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "rlhf_platform.settings",
        "DATA_DIR": str(tmp_path),
        "DATABASE_URL": f"sqlite:///{tmp_path / 'crowd.sqlite3'}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.annotate.services.crowd"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [EXACT, LAST]


@pytest.mark.django_db(transaction=True)
def test_fifty_people_and_three_places_of_the_last_comparison_on_postgresql() -> None:
    assert judge_the_last() == LAST


@pytest.mark.django_db(transaction=True)
def test_eight_people_judge_forty_comparisons_on_postgresql() -> None:
    assert judge_everything() == EXACT


@pytest.mark.django_db(transaction=True)
def test_eight_people_label_forty_texts_on_postgresql() -> None:
    assert judge_everything(labels=True) == EXACT


@pytest.mark.django_db(transaction=True)
def test_requests_of_every_kind_at_once_neither_wait_for_each_other_nor_lose_a_place() -> None:
    people = make_people()
    project = make_project(people.workspace, overlap=3)
    comparisons = [make_comparison(project, prompt=f"{n}?") for n in range(6)]
    # Two threads each: everybody has two windows open.
    crowd = [make_annotator(people.workspace, name=f"person {n // 2}") for n in range(8)]

    def work(index: int) -> None:
        dice = random.Random(index)
        person = crowd[index]
        for number in range(40):
            key = f"{index}-{number}"
            try:
                mine = next_assignment(project=project, annotator=person)
                step = dice.choice(["submit", "late", "undo", "skip", "leave"])
                if step == "undo":
                    undo_judgment(project=project, annotator=person, idempotency_key=key)
                elif mine is None:
                    continue
                elif step == "skip" and dice.random() < 0.2:
                    skip_assignment(assignment=mine, annotator=person)
                elif step == "leave":
                    run_out(mine)
                    expire_leases(project=project)
                else:
                    if step == "late":
                        run_out(mine)
                    submit_judgment(
                        assignment=mine, annotator=person, answer="left", idempotency_key=key
                    )
            except AnnotateError:
                continue

    outcomes = in_parallel(8, work)
    assert [one for one in outcomes if one is not None] == []
    assert all(overlap_holds(comparison) for comparison in comparisons)
    for comparison in Comparison.objects.all():
        leased = comparison.assignments.filter(state=Assignment.State.LEASED)
        assert leased.count() == leased.values("annotator").distinct().count()
