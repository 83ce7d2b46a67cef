"""The page of one run: history, settings, log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_curve, make_event, make_round, make_run
from training.models import JobEvent, Run
from training.selectors.logs import TAIL, log_tail


@pytest.fixture
def run(people: People) -> Run:
    return make_run(
        make_round(make_project(people.workspace)), state="failed", reason="bug", detail="boom"
    )


def write_log(run: Run, attempt: str, text: str, *, at: float | None = None) -> Path:
    path = Path(settings.RUNS_DIR) / run.folder / "attempts" / attempt / "log.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if at is not None:
        os.utime(path, (at, at))
    return path


def test_it_shows_what_happened_and_why(
    run: Run, people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    for before, after, why in (("queued", "running", ""), ("running", "failed", "bug")):
        JobEvent.objects.create(
            job=run.job, from_state=before, to_state=after, attempt=1, reason=why, detail="boom"
        )
    make_event(run, 0, "start", total_steps=3, rows=4, device="cpu")
    make_event(run, 1, "warning", code="cut", message="one cut")
    make_event(run, 2, "sample", step=1, prompt_id="x", prompt=[], text="hello there")
    make_curve(run, "loss/train", 1.0, 0.5)
    write_log(run, "aaa", "yesterday", at=1.0)
    write_log(run, "bbb", "the <newest> log")
    client.force_login(people.rita)
    with django_assert_max_num_queries(25):
        page = client.get(f"/runs/{run.pk}/").content.decode()
    for words in (
        "The engine broke.", "boom", "a worker took it", "one cut", "hello there", "loss/train",
        "started on cpu", "the &lt;newest&gt; log", "Try again",
    ):  # fmt: skip
        assert words in page, words
    assert "yesterday" not in page


def test_only_the_end_of_a_long_log_is_read(run: Run) -> None:
    write_log(run, "aaa", "first" + "ü" * TAIL + "last")
    tail = log_tail(run)
    assert tail.endswith("last")
    assert "first" not in tail
    assert len(tail.encode()) <= TAIL + 3


def test_a_log_that_leads_out_of_the_runs_folder_is_not_read(run: Run, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("key", encoding="utf-8")
    path = write_log(run, "aaa", "")
    path.unlink()
    path.symlink_to(secret)
    assert log_tail(run) == ""
    run.folder = "../../../../etc"
    assert log_tail(run) == ""


def test_settings_that_differ_from_the_run_before_are_named(
    run: Run, people: People, client: Client
) -> None:
    assert run.round is not None
    second = make_run(make_round(run.round.project), state="succeeded")
    second.config = {**second.config, "optim": {"lr": 2e-4}, "adapter": {"init_from": "/x"}}
    second.save()
    client.force_login(people.rita)
    page = client.get(f"/runs/{second.pk}/").content.decode()
    assert "<code>optim.lr</code></td><td><code>0.0001</code></td><td><code>0.0002" in page
    assert "<code>adapter.init_from</code>" not in page
    assert "the run before</a> (round 1)" in page


def test_a_run_that_wrote_nothing_says_so(run: Run, people: People, client: Client) -> None:
    client.force_login(people.rita)
    assert "It wrote none" in client.get(f"/runs/{run.pk}/").content.decode()
