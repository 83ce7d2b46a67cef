"""What ended a run early, in words, on its page and its round's, whatever its result holds."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_event, make_round, make_run
from training.engine.alarms import RULES
from training.models import Round, Run

WHY = (
    "after 3 updates the KL to the reference was 5.21 nats per response, above ppo.kl_budget 4; "
    "the adapter is that of 2 updates, the last whose measured KL was within it"
)
BUDGET = {"by": "kl_budget", "after_updates": 3, "kept_updates": 2, "why": WHY}
ALARM = {
    "name": "length_drift", "action": "stop", "metric": "length/mean", "step": 7, "value": 22.0,
    "threshold": 20.0, "message": "responses have 22 tokens on average, and had 10",
    "remedy": RULES["length_drift"].remedy, "good_until": 4, "kept_step": 3,
}  # fmt: skip


@pytest.fixture
def run(people: People) -> Run:
    round = make_round(make_project(people.workspace), state="evaluating")
    round.method = Round.Method.PPO
    round.save()
    return make_run(round, state="succeeded")


def pages(client: Client, people: People, run: Run, stopped: Any) -> list[str]:
    """The pages of the run and of its round once its result holds this."""
    run.result = {"status": "done", "metrics": {}, "stopped": stopped}
    run.save()
    assert run.round is not None
    client.force_login(people.rita)
    places = (f"/runs/{run.pk}/", f"/rounds/{run.round.pk}/")
    replies = [client.get(place) for place in places]
    assert [reply.status_code for reply in replies] == [200, 200]
    return [reply.content.decode() for reply in replies]


def test_a_budgets_stop_is_told_once_with_what_was_kept_and_what_helps(
    run: Run, people: People, client: Client
) -> None:
    make_event(run, 0, "warning", code="kl_budget", message=WHY)
    for page in pages(client, people, run, BUDGET):
        assert "✕ Stopped by its KL budget, ppo.kl_budget" in page
        assert "after 3 updates" in page
        assert page.count("above ppo.kl_budget 4") == 1  # not as a warning again
        assert "The weights after 2 updates are kept." in page
        assert RULES["kl_budget"].remedy in page
        assert "A higher ppo.kl_budget lets it go further." in page


def test_an_alarms_stop_is_told_also_where_its_event_was_lost(
    run: Run, people: People, client: Client
) -> None:
    for page in pages(client, people, run, ALARM):
        assert page.count("✕ Stopped by the alarm length drift") == 1
        assert "after 7 updates" in page
        assert "Responses have 22 tokens on average, and had 10." in page
        assert "The weights after 3 updates are kept." in page
        assert "the reward model pays for length" in page


def test_what_kept_nothing_says_so(run: Run, people: People, client: Client) -> None:
    for page in pages(client, people, run, {**ALARM, "kept_step": 0}):
        assert "no weights were saved" in page
    for page in pages(client, people, run, {**BUDGET, "after_updates": 1, "kept_updates": 0}):
        assert "after 1 update " in page.replace("<", " ")
        assert "The weights that it started from are kept." in page


@pytest.mark.parametrize(
    "stopped",
    [
        {key: "<script>x</script>" for key in BUDGET} | {"by": "kl_budget"},
        {key: "<script>x</script>" for key in ALARM},
    ],
)
def test_hostile_words_are_text(
    stopped: dict[str, Any], run: Run, people: People, client: Client
) -> None:
    for page in pages(client, people, run, stopped):
        assert "✕ Stopped by" in page
        assert "<script>x" not in page
        assert "&lt;script&gt;x&lt;/script&gt;" in page


@pytest.mark.parametrize(
    "stopped", [None, True, [], "by", {}, {"by": "x"}, {"name": None, "step": []}]
)
def test_another_shape_breaks_no_page(
    stopped: Any, run: Run, people: People, client: Client
) -> None:
    named = isinstance(stopped, dict) and "name" in stopped
    for page in pages(client, people, run, stopped):
        assert ("✕ Stopped by" in page) == named
