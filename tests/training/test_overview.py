"""The admin's page: one question a card, answered in a sentence with its number."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People
from tests.training.rows import make_event, make_round, make_run
from training.models import JobEvent, Run, RunEvent
from training.selectors.costs import run_costs


def lived(run: Run, *, seconds: float, to: str) -> None:
    """One attempt of a run's job that began an hour ago."""
    began = timezone.now() - timedelta(hours=1)
    ended = began + timedelta(seconds=seconds)
    for before, after, at in (("queued", "running", began), ("running", to, ended)):
        JobEvent.objects.create(job=run.job, from_state=before, to_state=after, attempt=1, at=at)


def test_an_empty_workspace_is_told_where_to_begin(people: People, client: Client) -> None:
    client.force_login(people.alice)
    page = client.get("/overview/").content.decode()
    assert "Nothing to look at yet" in page
    assert "Nothing is stuck." in page
    assert "No run has ended" in page


def test_each_question_is_answered(
    people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    project = make_project(people.workspace)
    bob, rita = (make_annotator(people.workspace, who) for who in (people.bob, people.rita))
    for number in range(4):
        pair = make_comparison(project, prompt=f"{number}?")
        make_judgment(pair, bob, "a", swapped=bool(number % 2), active_ms=9000)
        make_judgment(pair, rita, "a" if number else "b", swapped=False, active_ms=18000)
    failed = make_run(make_round(project), state="failed", reason="disk")
    lived(failed, seconds=75, to="failed")
    client.force_login(people.alice)
    client.get("/overview/")  # agreement is computed once, then remembered
    with django_assert_max_num_queries(26):
        page = client.get("/overview/").content.decode()
    assert "overlapping comparisons, " in page
    assert "n = 8; fair is 50 %" in page
    assert "needs 20 judgments made here" in page
    assert "400" in page  # Bob: 4 judgments in 36 s is 400 an active hour
    assert "The disk had no room, or could not be written." in page
    assert "1 min 15 s" in page


def test_costs_count_every_attempt_and_name_the_device(people: People) -> None:
    round = make_round(make_project(people.workspace))
    dpo, reward = make_run(round, state="failed"), make_run(round, stage="reward")
    lived(dpo, seconds=30, to="lost")
    lived(dpo, seconds=50, to="failed")
    lived(reward, seconds=7, to="succeeded")
    make_event(reward, 0, "start", device="cuda")
    RunEvent.objects.update(at=timezone.now())
    theirs = make_run(make_round(make_project(people.elsewhere)), state="failed")
    lived(theirs, seconds=1000, to="failed")
    found = run_costs(workspace=people.workspace)
    assert [(c.method, c.device, c.runs, round_(c.seconds)) for c in found] == [
        ("DPO", "unknown", 1, 80),
        ("Reward model", "cuda", 1, 7),
    ]


def round_(seconds: float) -> int:
    return int(seconds + 0.5)


@pytest.mark.parametrize("who", ["rita", "bob"])
def test_only_admins_see_it(people: People, client: Client, who: str) -> None:
    client.force_login(getattr(people, who))
    reply = client.get("/overview/")
    assert reply.status_code == 403
    assert "You may not see this" in reply.content.decode()
