"""The page of one job: how it stands and why, every attempt, what to do."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone

from tests.factories import make_project
from tests.people import People
from tests.training.rows import (
    make_attempt,
    make_checkpoint,
    make_round,
    make_run,
    make_snapshot,
    make_version,
    write_attempt_file,
)
from tests.training.test_smaller import engine_config
from training.models import Job, JobEvent, Round, Run
from training.selectors.logs import TAIL, attempt_files
from training.selectors.waiting import why_it_waits
from training.services import queueing


@pytest.fixture
def run(people: People) -> Run:
    return make_run(
        make_round(make_project(people.workspace), state="failed"),
        state="failed",
        reason="bug",
        detail="boom",
        finished_at=timezone.now(),
    )


def page_of(job: Job, client: Client, people: People) -> str:
    client.force_login(people.rita)
    return client.get(f"/jobs/{job.pk}/").content.decode()


def test_it_shows_every_attempt_and_what_to_do(
    run: Run, people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    first = make_attempt(
        run.job, 1, ended_at=timezone.now(), outcome="lost", reason="preempted", worker="box:1"
    )
    second = make_attempt(
        run.job, 2, ended_at=timezone.now(), outcome="failed", reason="bug", detail="boom"
    )
    for before, after, number, why in (
        ("queued", "running", 1, ""), ("running", "lost", 1, "preempted"),
        ("lost", "queued", 1, "preempted"), ("queued", "running", 2, ""),
        ("running", "failed", 2, "bug"),
    ):  # fmt: skip
        JobEvent.objects.create(
            job=run.job, from_state=before, to_state=after, attempt=number, reason=why
        )
    write_attempt_file(run, first, "log.txt", "of <yesterday>")
    write_attempt_file(run, second, "log.txt", "the <newest> log")
    write_attempt_file(run, second, "traceback.txt", "ValueError: <boom>")
    make_checkpoint(run, first, 4)
    client.force_login(people.rita)
    with django_assert_max_num_queries(20):
        page = client.get(f"/jobs/{run.job.pk}/").content.decode()
    for words in (
        "The engine broke.", "Read the traceback", "■ Interrupted", "Its worker was stopped.",
        "box:1", "a worker took it", "back in the queue", "the &lt;newest&gt; log",
        "of &lt;yesterday&gt;", "ValueError: &lt;boom&gt;", "Go on from step 4", "abababababab",
        f'href="/runs/{run.pk}/"',
    ):  # fmt: skip
        assert words in page, words
    assert page.index("<summary>Attempt 1</summary>") > page.index("the &lt;newest&gt; log")


def test_an_end_that_a_round_left_behind_offers_no_retry(
    run: Run, people: People, client: Client
) -> None:
    assert "Try again</button>" in page_of(run.job, client, people)
    assert run.round is not None
    make_run(run.round, stage="evaluate", state="running")
    page = page_of(run.job, client, people)
    assert "Its round has gone on without it" in page
    assert "Try again</button>" not in page


def test_too_little_memory_comes_with_settings_to_paste(people: People, client: Client) -> None:
    round = make_round(make_project(people.workspace), state="failed")
    Round.objects.filter(pk=round.pk).update(config={"policy": {"optim": {"lr": 1e-5}}})
    run = make_run(round, state="failed", reason="oom", detail="killed")
    Run.objects.filter(pk=run.pk).update(config=engine_config("dpo"))
    for address in (f"/jobs/{run.job.pk}/", f"/runs/{run.pk}/"):
        client.force_login(people.rita)
        page = client.get(address).content.decode()
        assert "It ran out of memory." in page
        settings = page.split('aria-label="Settings as JSON">')[1].split("</pre>")[0]
        assert json.loads(settings.replace("&quot;", '"')) == {
            "policy": {"optim": {"lr": 1e-5}, "gradient_checkpointing": True, "row_budget": 256}
        }
        assert "--set policy.row_budget=256 --set policy.gradient_checkpointing=true" in page
        assert "everything at once" in page


def test_a_push_says_what_it_pushes_and_where_it_went(people: People, client: Client) -> None:
    snapshot = make_snapshot(make_project(people.workspace))
    job = Job.objects.create(
        workspace=people.workspace, kind="push_snapshot", queue="default", state="succeeded",
        payload={"snapshot": snapshot.pk, "repo": "me/data", "public": False},
        outcome={"url": "https://hub/me/data", "repo": "me/data", "commit": "c0ffee"},
    )  # fmt: skip
    page = page_of(job, client, people)
    assert f'<a href="/projects/helpful/snapshots/{snapshot.number}/">' in page
    assert "c0ffee" in page
    assert "End of the log" not in page
    version = make_version(people.elsewhere, "theirs", kind="policy")
    Job.objects.filter(pk=job.pk).update(payload={"version": version.pk, "repo": "me/model"})
    assert "theirs" not in page_of(job, client, people)


def test_a_retry_from_the_page_comes_back_to_it(run: Run, people: People, client: Client) -> None:
    client.force_login(people.rita)
    reply = client.post(f"/jobs/{run.job.pk}/retry", follow=True)
    page = reply.content.decode()
    assert reply.redirect_chain == [(f"/jobs/{run.job.pk}/", 302)]
    assert f"Job {run.job.pk} is in the queue again." in page
    assert "It waits" in page
    assert "It is the next in its queue." in page


# Logs -------------------------------------------------------------------------------------------


def test_only_the_end_of_a_long_log_is_read(run: Run) -> None:
    attempt = make_attempt(run.job)
    write_attempt_file(run, attempt, "log.txt", "first" + "ü" * TAIL + "last")
    tail = attempt_files(run, attempt.token.hex).log
    assert tail.endswith("last")
    assert "first" not in tail
    assert len(tail.encode()) <= TAIL + 3


def test_a_log_that_leads_out_of_the_runs_folder_is_not_read(run: Run, tmp_path: Path) -> None:
    secret = tmp_path / "log.txt"
    secret.write_text("key", encoding="utf-8")
    attempt = make_attempt(run.job)
    path = write_attempt_file(run, attempt, "log.txt", "")
    path.unlink()
    path.symlink_to(secret)
    assert attempt_files(run, attempt.token.hex).log == ""
    path.unlink()
    path.mkdir()  # and a folder is no log either
    assert attempt_files(run, attempt.token.hex).log == ""
    run.folder = f"../../../..{tmp_path}"
    (tmp_path / "attempts" / "a").mkdir(parents=True)
    (tmp_path / "attempts" / "a" / "log.txt").write_text("key", encoding="utf-8")
    assert attempt_files(run, "a").log == ""


def test_a_run_that_wrote_nothing_says_so(run: Run, people: People, client: Client) -> None:
    make_attempt(run.job)
    assert "It wrote none" in page_of(run.job, client, people)


def test_a_checkpoint_is_here_deleted_or_elsewhere(
    run: Run, people: People, client: Client
) -> None:
    attempt = make_attempt(run.job)
    rows = [make_checkpoint(run, attempt, step) for step in (1, 2, 3)]
    folder = Path(settings.RUNS_DIR) / run.folder
    for row in rows[1:]:
        (folder / row.path).rename(folder / f"gone-{row.step}")
    rows[1].removed_at = timezone.now()
    rows[1].save()
    page = page_of(run.job, client, people)
    assert "Go on from step 1" in page
    assert page.count(">here</td>") == 1
    assert page.count("to free space") == 1
    assert page.count("not on this machine</span>") == 1


# Why it waits -----------------------------------------------------------------------------------


def waiting(people: People, **job: Any) -> Job:
    return make_run(make_round(make_project(people.workspace)), state="queued", **job).job


def said(job: Job) -> str:
    job.refresh_from_db()
    return " ".join(why_it_waits(job))


def test_a_job_knows_its_place_and_who_is_at_work(people: People) -> None:
    job = waiting(people)
    assert job.round is not None
    assert said(job) == "It is the next in its queue. A worker takes it within seconds."
    other = make_run(job.round, stage="reward", state="running").job
    assert f"The device is busy with job {other.pk} (Reward model of round 1)" in said(job)
    ahead = make_run(job.round, stage="evaluate", state="queued").job
    Job.objects.filter(pk=ahead.pk).update(
        created_at=job.created_at - timedelta(seconds=5), queue="sampling"
    )
    assert said(job).startswith("1 job of its queue is before it.")  # sampling shares the device


def test_another_workspaces_job_is_not_described(people: People) -> None:
    job = waiting(people)
    theirs = make_run(make_round(make_project(people.elsewhere, "secret")), state="running").job
    assert "busy with a job of another workspace" in said(job)
    assert str(theirs.pk) not in said(job).replace(str(job.pk), "")


def test_a_queue_without_a_worker_is_named(people: People) -> None:
    job = waiting(people, created_at=timezone.now() - timedelta(minutes=5))
    assert "is one running (manage.py up" in said(job)
    JobEvent.objects.create(job=job, from_state="failed", to_state="queued", attempt=1)
    assert "within seconds" in said(job)  # it came back just now


def test_a_running_job_says_what_is_wrong_with_it(people: People) -> None:
    job = waiting(people)
    claim = queueing.claim(job_id=job.pk)
    assert claim is not None
    assert said(job) == ""
    Job.objects.filter(pk=job.pk).update(cancel_requested=True)
    assert "A person asked to cancel it." in said(job)
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert "has stopped giving signs of life" in said(job)
    queueing.finish(claim=claim, to="failed", reason="bug", detail="x")
    assert said(job) == ""
