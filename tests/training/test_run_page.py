"""The page of one run: how it stands, what it measured, its settings."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_curve, make_event, make_round, make_run
from training.models import Run


@pytest.fixture
def run(people: People) -> Run:
    return make_run(
        make_round(make_project(people.workspace), state="failed"),
        state="failed",
        reason="bug",
        detail="boom",
    )


def test_it_shows_what_came_of_it_and_why(
    run: Run, people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    make_event(run, 0, "start", total_steps=3, rows=4, device="cpu")
    make_event(run, 1, "warning", code="cut", message="one cut")
    make_event(run, 2, "sample", step=1, prompt_id="x", prompt=[], text="hello there")
    make_curve(run, "loss/train", 1.0, 0.5)
    client.force_login(people.rita)
    with django_assert_max_num_queries(25):
        page = client.get(f"/runs/{run.pk}/").content.decode()
    for words in (
        "The engine broke.", "boom", "one cut", "hello there", "loss/train", "started on cpu",
        "Try again", f'href="/jobs/{run.job.pk}/"',
    ):  # fmt: skip
        assert words in page, words


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


def test_a_classification_is_shown_class_by_class(run: Run, people: People, client: Client) -> None:
    share = {"precision": 0.5, "precision_low": 0.2, "precision_high": 0.8}
    share |= {"recall": 1.0, "recall_low": 0.4, "recall_high": 1.0}
    share |= {"f1": 0.667, "f1_low": 0.3, "f1_high": 0.9}
    nothing = dict.fromkeys(share)
    run.result = {
        "status": "done", "metrics": {},
        "classification": {
            "labels": ["ham", "<b>spam"], "rows": 6,
            "calibration": {"ece": 0.1, "bins": []}, "majority": {"label": "ham", "accuracy": 0.33},
            "confusion": [[2, 0], [4, 0]],
            "per_class": [
                {"label": "ham", "support": 2, "predicted": 6, **share},
                {"label": "<b>spam", "support": 4, "predicted": 0, **nothing},
            ],
        },
    }  # fmt: skip
    run.save()
    client.force_login(people.rita)
    page = client.get(f"/runs/{run.pk}/").content.decode()
    assert "On 6 held-out rows" in page
    assert "[0.200, 0.800]" in page
    assert "never said" in page
    assert "&lt;b&gt;spam" in page
    assert "4 of 4" in page
