"""Polling a round's events after a cursor."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_event, make_round, make_run
from training.models import Round
from training.selectors.round_events import PAGE, read_cursor


@pytest.fixture
def round(people: People) -> Round:
    return make_round(make_project(people.workspace))


def test_events_come_once_and_in_order(
    round: Round, people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    run = make_run(round)
    make_event(run, 0, "start", total_steps=4)
    make_event(run, 1, "progress", step=1, total_steps=4)
    client.force_login(people.rita)
    address = f"/rounds/{round.pk}/events"
    with django_assert_max_num_queries(12):
        first = client.get(address).json()
    assert [(event["kind"], event["seq"]) for event in first["events"]] == [
        ("start", 0),
        ("progress", 1),
    ]
    assert first["events"][1]["step"] == 1
    assert (first["cursor"], first["more"]) == (f"{run.pk}.1.1", False)
    assert (first["step"], first["total_steps"], first["run"]) == (1, 4, run.pk)
    assert client.get(f"{address}?after={first['cursor']}").json()["events"] == []

    # A second attempt counts from 0 again and still comes after the first.
    make_event(run, 0, "resumed", attempt=2, step=1)
    second = client.get(f"{address}?after={first['cursor']}").json()
    assert [(event["attempt"], event["kind"]) for event in second["events"]] == [(2, "resumed")]
    assert second["cursor"] == f"{run.pk}.2.0"


def test_the_next_run_starts_from_its_own_first_event(
    round: Round, people: People, client: Client
) -> None:
    reward = make_run(round, stage="reward", state="succeeded")
    make_event(reward, 7, "end", status="done")
    policy = make_run(round)
    make_event(policy, 0, "start", total_steps=1)
    client.force_login(people.rita)
    reply = client.get(f"/rounds/{round.pk}/events?after={reward.pk}.1.7").json()
    assert (reply["run"], [event["seq"] for event in reply["events"]]) == (policy.pk, [0])


def test_an_answer_is_bounded_and_the_cursor_goes_on(
    round: Round, people: People, client: Client
) -> None:
    run = make_run(round)
    for seq in range(PAGE + 5):
        make_event(run, seq, "metrics", step=seq, values={})
    client.force_login(people.rita)
    first = client.get(f"/rounds/{round.pk}/events").json()
    assert (len(first["events"]), first["more"]) == (PAGE, True)
    rest = client.get(f"/rounds/{round.pk}/events?after={first['cursor']}").json()
    assert (len(rest["events"]), rest["more"]) == (5, False)


def test_a_round_without_runs_has_no_events(round: Round, people: People, client: Client) -> None:
    client.force_login(people.rita)
    reply = client.get(f"/rounds/{round.pk}/events").json()
    assert (reply["run"], reply["events"], reply["cursor"]) == (None, [], "")


@pytest.mark.parametrize("text", ["", "x", "1.2", "1.2.x", "-1.2.3", "1.2.3.4", "٣.1.1", "9" * 99])
def test_a_cursor_that_is_none_means_from_the_start(
    round: Round, people: People, client: Client, text: str
) -> None:
    make_event(make_run(round), 0, "start", total_steps=1)
    assert read_cursor(text) is None
    client.force_login(people.rita)
    reply = client.get(f"/rounds/{round.pk}/events", {"after": text})
    assert len(reply.json()["events"]) == 1


def test_the_signature_changes_with_the_job(round: Round, people: People, client: Client) -> None:
    run = make_run(round)
    client.force_login(people.rita)
    before = client.get(f"/rounds/{round.pk}/events").json()["signature"]
    run.job.attempts = 2
    run.job.save()
    assert client.get(f"/rounds/{round.pk}/events").json()["signature"] != before
