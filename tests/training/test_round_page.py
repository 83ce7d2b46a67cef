"""A round in the browser: the launch form, the page, the live part, the verdict."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.factories import make_project
from tests.people import People
from tests.training.rows import (
    make_curve,
    make_event,
    make_prompt_set,
    make_round,
    make_run,
    make_snapshot,
    make_version,
)
from training.models import Job, Round, Run
from training.services.versions import base_version


def test_what_is_missing_is_said_instead_of_a_form(people: People, client: Client) -> None:
    client.force_login(people.rita)
    page = client.get("/rounds/").content.decode()
    assert "freeze a snapshot" in page
    assert "import fresh prompts" in page
    assert "Launch</button>" not in page


def test_a_round_is_launched_with_what_the_form_proposes(people: People, client: Client) -> None:
    snapshot = make_snapshot(make_project(people.workspace))
    prompts = make_prompt_set(people.workspace)
    base = base_version(workspace=people.workspace)
    make_version(people.workspace, "newest", kind="policy")
    client.force_login(people.rita)
    page = client.get("/rounds/").content.decode()
    assert f'<option value="{base.pk}" selected>' in page  # not the newest candidate
    assert "Reward model 1 steps" in page
    asked = {
        "snapshot": snapshot.pk, "method": "dpo", "reference": base.pk,
        "fresh_prompts": prompts.pk, "reward_version": "",
    }  # fmt: skip
    reply = client.post("/rounds/", asked)
    made = Round.objects.get()
    assert reply.headers["Location"] == f"/rounds/{made.pk}/"
    assert (made.created_by, made.state) == (people.rita, Round.State.TRAINING_REWARD)
    page = client.get(f"/rounds/{made.pk}/").content.decode()
    assert "Waiting for a worker" in page


def test_another_workspaces_snapshot_is_no_choice(people: People, client: Client) -> None:
    theirs = make_snapshot(make_project(people.elsewhere))
    make_snapshot(make_project(people.workspace))
    prompts = make_prompt_set(people.workspace)
    base = base_version(workspace=people.workspace)
    client.force_login(people.rita)
    asked = {
        "snapshot": theirs.pk, "method": "dpo", "reference": base.pk, "fresh_prompts": prompts.pk,
    }  # fmt: skip
    assert client.post("/rounds/", asked).status_code == 422
    assert not Round.objects.exists()


def test_a_reward_from_elsewhere_is_refused_with_the_way_out(
    people: People, client: Client
) -> None:
    snapshot = make_snapshot(make_project(people.workspace))
    prompts = make_prompt_set(people.workspace)
    base = base_version(workspace=people.workspace)
    client.force_login(people.rita)
    asked = {
        "snapshot": snapshot.pk, "method": "ppo", "reference": base.pk, "fresh_prompts": prompts.pk,
        "config": '{"policy": {"ppo": {"reward_url": "https://example.org/<b>"}}}',
    }  # fmt: skip
    reply = client.post("/rounds/", asked)
    page = reply.content.decode()
    assert reply.status_code == 422
    assert "reward_url is not for rounds: a round scores with its own reward model" in page
    assert "python -m training.engine run (docs/methods/ppo.md)" in page
    assert "https://example.org/&lt;b&gt;" in page  # what was typed stands in the form
    assert not Round.objects.exists()


@pytest.fixture
def running(people: People) -> Run:
    round = make_round(make_project(people.workspace))
    make_run(round, stage="reward", state="succeeded")
    run = make_run(round)
    make_event(run, 0, "start", total_steps=10, device="cpu", rows=4)
    make_event(run, 1, "warning", code="cut", message="3 <b>responses</b> cut")
    make_event(run, 2, "phase", name="train")
    make_event(run, 3, "progress", step=1, total_steps=10)
    make_event(run, 4, "progress", step=2, total_steps=10)
    make_event(
        run, 5, "sample", step=2, prompt_id="x", prompt=[{"role": "user", "content": "Hi?"}],
        text="<script>alert(1)</script>", reward=0.25,
    )  # fmt: skip
    make_curve(run, "loss/train", 0.69, 0.5)
    return run


def test_the_live_part_shows_stages_pace_curves_and_the_newest_answer(
    running: Run, people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    assert running.round is not None
    client.force_login(people.rita)
    with django_assert_max_num_queries(25):
        page = client.get(f"/rounds/{running.round.pk}/live").content.decode()
    assert "10 s a step · about 1 min 20 s left" in page
    assert "loss/train" in page
    assert "3 &lt;b&gt;responses&lt;/b&gt; cut" in page
    assert "scored 0.250" in page
    assert "<script>" not in page
    assert "no sign of life" in page  # its last event is of another month
    assert "<html" not in page
    whole = client.get(f"/rounds/{running.round.pk}/").content.decode()
    assert "round.js" in whole
    assert f'data-cursor="{running.pk}.1.5"' in whole


def test_after_the_last_step_no_time_is_promised(
    running: Run, people: People, client: Client
) -> None:
    make_event(running, 6, "progress", step=10, total_steps=10)
    make_event(running, 7, "phase", name="save")
    assert running.round is not None
    client.force_login(people.rita)
    page = client.get(f"/rounds/{running.round.pk}/live").content.decode()
    assert "All steps are done; now: save." in page
    assert "left in this stage" not in page


def test_a_failed_round_says_why_and_what_to_do(people: People, client: Client) -> None:
    round = make_round(make_project(people.workspace), state="failed")
    run = make_run(round, state="failed", reason="oom", detail="the process was killed")
    client.force_login(people.rita)
    page = client.get(f"/rounds/{round.pk}/").content.decode()
    assert "It ran out of memory." in page
    assert "the process was killed" in page
    assert "settings that need less" in page
    assert "to come" not in page
    assert "round.js" not in page
    client.post(f"/rounds/{round.pk}/retry")
    assert Job.objects.get(run=run).state == Job.State.QUEUED


def test_the_verdict_is_asked_for_and_given(people: People, client: Client) -> None:
    round = make_round(make_project(people.workspace), state="awaiting_verdict")
    round.policy_version = make_version(people.workspace, "new", kind="policy")
    round.save()
    client.force_login(people.rita)
    assert "Your verdict" in client.get(f"/rounds/{round.pk}/").content.decode()
    page = client.post(f"/rounds/{round.pk}/promote", follow=True).content.decode()
    assert "new is promoted" in page
    page = client.post(f"/rounds/{round.pk}/reject", follow=True).content.decode()
    assert "cannot go from promoted to rejected" in page


def test_measured_figures_carry_interval_and_n(people: People, client: Client) -> None:
    round = make_round(make_project(people.workspace), state="awaiting_verdict")
    run = make_run(round, stage="reward", state="succeeded")
    run.result = {
        "metrics": {
            "reward/accuracy": 0.75,
            "reward/accuracy_low": 0.5,
            "reward/accuracy_high": 0.9,
            "loss/train": 0.6,
        }
    }
    run.save()
    client.force_login(people.rita)
    page = client.get(f"/rounds/{round.pk}/").content.decode()
    assert "0.500 to 0.900" in page
    assert f'data-label="n">{round.snapshot.n_test}</td>' in page
    assert "accuracy_low" not in page
