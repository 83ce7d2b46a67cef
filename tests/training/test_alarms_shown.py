"""Alarms and the preflight where people look: the run's page, the round's, the launch form, API."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from annotate.models import Answer, Snapshot
from annotate.services.freezing import freeze_snapshot
from tests.api.world import Caller, caller
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People
from tests.training.rows import (
    make_curve,
    make_event,
    make_prompt_set,
    make_round,
    make_run,
    make_snapshot,
)
from training.engine.inspection import Finding
from training.models import Job, Run, RunEvent
from training.selectors.alarms import run_alarms
from training.services.executing import execute_run
from training.services.folders import data_lines
from training.services.forwarding import Forwarder
from training.services.queueing import claim, enqueue

ALARM: dict[str, Any] = {
    "name": "kl_budget", "action": "stop", "metric": "kl/to_reference", "step": 12,
    "value": 23.5, "threshold": 20.0, "message": "KL is <b>23.5</b> nats", "remedy": "Raise it.",
    "good_until": 8,
}  # fmt: skip
FOUND = Finding("cut", "warn", 3, 9, "responses cut", "Raise data.max_length.", ("<i>r1</i>",))


@pytest.fixture
def run(people: People) -> Run:
    return make_run(make_round(make_project(people.workspace)))


def test_an_alarm_is_shown_once_however_many_attempts_repeat_it(
    run: Run, people: People, client: Client
) -> None:
    warned = {**ALARM, "name": "eos_rate", "action": "warn", "step": 4, "message": "They <stop>"}
    make_event(run, 3, "alarm", **warned)
    make_event(run, 5, "alarm", **ALARM)
    for seq, body in ((2, warned), (4, ALARM)):
        make_event(run, seq, "alarm", attempt=2, **body)
    run.result = {"status": "done", "stopped": {**ALARM, "kept_step": 8}}
    run.save()
    assert [(a.name, a.step, a.kept_step) for a in run_alarms([run])] == [
        ("eos_rate", 4, None), ("kl_budget", 12, 8),
    ]  # fmt: skip
    client.force_login(people.rita)
    assert run.round is not None
    for address in (f"/runs/{run.pk}/", f"/rounds/{run.round.pk}/", f"/rounds/{run.round.pk}/live"):
        page = client.get(address).content.decode()
        assert page.count("! Alarm: eos rate") == 1, address
        assert page.count("✕ Stopped by the alarm kl budget") == 1
        assert "after 12 optimizer steps" in page
        assert "KL is &lt;b&gt;23.5&lt;/b&gt; nats" in page
        assert "The weights after 8 optimizer steps are kept." in page
        assert "Raise it." in page
    make_curve(run, "kl/to_reference", 1.0, 25.0)
    page = client.get(f"/runs/{run.pk}/").content.decode()
    assert "Dashed: where its alarm rings, 20.0." in page
    # 20 of 1 to 25, from the top: 10 + (1 - 19/24) * (150 - 22 - 10)
    assert '<line class="limit" x1="48" y1="34.6"' in page
    rita = caller(people.rita, people.workspace)
    told = rita.get(f"/runs/{run.pk}").json()["alarms"]
    assert told == rita.get(f"/rounds/{run.round.pk}").json()["alarms"]
    assert [each["name"] for each in told] == ["eos_rate", "kl_budget"]
    assert (told[1]["stopped"], told[1]["kept_step"], told[1]["value"]) == (True, 8, 23.5)


def test_an_event_that_is_forwarded_twice_is_stored_once(run: Run, tmp_path: Path) -> None:
    run.job.delete()
    job = enqueue(kind="run", queue="training", workspace=run.workspace, run=run, round=run.round)
    mine = claim(job_id=job.pk)
    assert mine is not None
    line = (
        '{"seq": 0, "at": "2026-11-01T12:00:00.000+00:00", "kind": "alarm", "name": "eos_rate"}\n'
    )
    (tmp_path / "events.jsonl").write_text(line, encoding="utf-8")
    for _ in range(2):
        Forwarder(mine, mine.attempt, tmp_path).forward()
    assert RunEvent.objects.filter(run=run, kind="alarm").count() == 1


def test_an_alarm_event_of_another_shape_breaks_no_page(
    run: Run, people: People, client: Client
) -> None:
    make_event(run, 1, "alarm", name=None, step="x", value="much")
    make_event(
        run, 2, "preflight", findings=[None, {"level": "loud"}, {"level": "ok"}], seconds="?"
    )
    client.force_login(people.rita)
    assert client.get(f"/runs/{run.pk}/").status_code == 200
    assert caller(people.rita, people.workspace).get(f"/runs/{run.pk}").status_code == 200


def test_what_the_engine_found_in_the_rows_is_on_the_runs_page(
    run: Run, people: People, client: Client
) -> None:
    fine = Finding("leaked", "ok", 0, 4, "held-out rows that leak")
    make_event(run, 1, "preflight", findings=[fine.as_json(), FOUND.as_json()], seconds=0.25)
    make_event(run, 2, "warning", code="preflight_cut", message="3 of 9 responses cut")
    client.force_login(people.rita)
    page = client.get(f"/runs/{run.pk}/").content.decode()
    assert "3 of 9" in page
    assert "&lt;i&gt;r1&lt;/i&gt;" in page
    assert "1 checks found nothing wrong" in page
    assert page.count("esponses cut") == 1  # in the table, not as a warning again
    assert run.round is not None
    assert "3 of 9 responses cut" in client.get(f"/rounds/{run.round.pk}/").content.decode()
    told = caller(people.rita, people.workspace).get(f"/runs/{run.pk}").json()["preflight"]
    assert [each["code"] for each in told] == ["cut", "leaked"]  # what needs a look first
    assert told[0]["examples"] == ["<i>r1</i>"]


ENGINE = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[2])
found = json.loads(pathlib.Path(sys.argv[0]).with_suffix(".json").read_text())
if found["adapter"]:
    (folder / found["adapter"]).mkdir(parents=True)
    (folder / found["adapter"] / "adapter_model.safetensors").write_bytes(b"weights of step 8")
    (folder / found["adapter"] / "adapter_config.json").write_text("{}")
(folder / "result.json").write_text(json.dumps(found))
"""


def run_to_its_end(run: Run, folder: Path, **result: Any) -> None:
    """A worker's attempt at the run with an engine that leaves this result."""
    Job.objects.filter(pk=run.job.pk).update(state="queued", token=None, lease_until=None)
    mine = claim(job_id=run.job.pk)
    assert mine is not None
    (folder / "engine.py").write_text(ENGINE, encoding="utf-8")
    (folder / "engine.json").write_text(json.dumps({"metrics": {}, **result}), encoding="utf-8")
    execute_run(
        claim=mine,
        stopping=threading.Event(),
        command=(sys.executable, str(folder / "engine.py")),
    )


@pytest.mark.django_db(transaction=True)
def test_a_stopped_run_succeeds_with_what_it_kept_and_its_round_goes_on(
    people: People, client: Client, tmp_path: Path
) -> None:
    round = make_round(make_project(people.workspace), state="training_reward")
    run = make_run(round, stage="reward")
    run.config = {"method": "reward", "base": round.reference.base}
    run.save()
    reason = "stopped at step 12 by the alarm kl_budget"
    stopped = {**ALARM, "kept_step": 8}
    run_to_its_end(
        run, tmp_path, status="done", reason=reason, stopped=stopped, adapter="attempts/x/adapter"
    )
    run.refresh_from_db()
    round.refresh_from_db()
    assert run.job.state == "succeeded"
    assert run.output is not None
    assert round.state == "training_policy"
    make_event(run, 0, "alarm", **ALARM)
    client.force_login(people.rita)
    page = client.get(f"/rounds/{round.pk}/").content.decode()
    assert "The weights after 8 optimizer steps are kept." in page


@pytest.mark.django_db(transaction=True)
def test_a_stop_that_keeps_nothing_fails_the_run_and_its_round_says_why(
    people: People, client: Client, tmp_path: Path
) -> None:
    round = make_round(make_project(people.workspace))
    run = make_run(round)
    run.config = {"method": "dpo", "base": round.reference.base}
    run.save()
    reason = "stopped at step 2 by the alarm kl_budget; nothing was worth keeping"
    stopped = {**ALARM, "kept_step": 0}
    run_to_its_end(
        run, tmp_path, status="failed", cause="alarm", reason=reason, stopped=stopped, adapter=None
    )
    round.refresh_from_db()
    assert Job.objects.get(run=run).reason == "alarm"
    assert (round.state, round.reason) == ("failed", f"DPO: {reason}")
    client.force_login(people.rita)
    page = client.get(f"/rounds/{round.pk}/").content.decode()
    assert "An alarm stopped it before any weights were worth keeping." in page
    assert "nothing was worth keeping" in page


def flawed_snapshot(people: People) -> Snapshot:
    """Rows of which one prompt's three responses go round in a circle."""
    project = make_project(people.workspace)
    teacher = make_annotator(people.workspace, name="teacher")
    for number in range(6):
        prompt = f"Question {number}?"
        for better, worse in (("a", "b"), ("b", "c"), ("c", "a")):
            pair = make_comparison(project, prompt=prompt, a=better, b=worse)
            make_judgment(pair, teacher, Answer.A)
    return freeze_snapshot(project=project, test_fraction=0.5)


def test_a_snapshot_is_looked_at_before_a_launch(
    people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    snapshot = flawed_snapshot(people)
    client.force_login(people.rita)
    with django_assert_max_num_queries(15):
        page = client.get(f"/snapshots/{snapshot.pk}/preflight/").content.decode()
    assert "Cycles" in page
    assert f"{snapshot.n_train} of {snapshot.n_train}" in page
    panel = client.get(f"/snapshots/{snapshot.pk}/preflight/panel").content.decode()
    assert "Cycles" in panel
    assert "<html" not in panel
    with django_assert_max_num_queries(10):  # computed once: a snapshot never changes
        client.get(f"/snapshots/{snapshot.pk}/preflight/panel")
    told = caller(people.rita, people.workspace).get(f"/snapshots/{snapshot.pk}/preflight").json()
    assert (told["refused"], told["rows"], told["of"]) == (False, 18, 18)
    assert told["results"][0]["code"] == "cycles"
    assert len(told["results"][0]["examples"]) == 3
    assert Caller().get(f"/snapshots/{snapshot.pk}/preflight").status_code == 401


def test_the_launch_form_leads_to_the_rows(people: People, client: Client) -> None:
    snapshot = make_snapshot(make_project(people.workspace))
    make_prompt_set(people.workspace)
    client.force_login(people.rita)
    page = client.get("/rounds/").content.decode()
    assert f'href="/snapshots/{snapshot.pk}/preflight/"' in page  # works without the module
    assert "rounds.js" in page


def test_ppo_gets_the_held_out_rows_to_watch(people: People) -> None:
    round = make_round(make_project(people.workspace))
    round.method = "ppo"
    lines = data_lines(make_run(round))
    assert set(lines) == {"prompts", "test"}
    assert len(lines["test"]) == round.snapshot.n_test
