"""A machine judge from its registration to a snapshot, by keyboard alone."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page
from pytest_django.live_server_helper import LiveServer

from annotate.models import Calibration, JudgeVersion, Snapshot
from annotate.services.machine_judging import store_machine_judgments
from tests.browser.test_judging_by_keyboard import CHROMIUM
from tests.browser.test_pages import enter, page, violations  # noqa: F401 - page is a fixture
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import make_people
from training.models import Job

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium was found"),
]
UGLY = "Because " + "x" * 300 + " <script>window.pwned = 1</script>"


def on(opened: Page, label: str, text: str) -> None:
    """Go to a field and type over what it holds."""
    opened.get_by_label(label, exact=True).focus()
    opened.keyboard.press("ControlOrMeta+a")
    opened.keyboard.type(text)


def press(opened: Page, name: str) -> None:
    opened.get_by_role("button", name=name, exact=True).press("Enter")


@pytest.mark.parametrize("width", [1280, 390])
def test_register_launch_accept_freeze(
    page: Page,  # noqa: F811 - the fixture
    live_server: LiveServer,
    settings: Any,
    width: int,
) -> None:
    settings.JUDGE_CALIBRATION_ROWS = 20
    people = make_people()
    project = make_project(people.workspace)
    someone = make_annotator(people.workspace, name="someone")
    pairs = [make_comparison(project, prompt=f"Question {number}?") for number in range(40)]
    for pair in pairs[:25]:
        make_judgment(pair, someone)
    page.set_viewport_size({"width": width, "height": 844})
    enter(page, live_server, people)

    def looks_well() -> None:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.url
        assert violations(page) == [], page.url
        assert page.evaluate("window.pwned") is None

    page.goto(f"{live_server.url}/projects/helpful/")
    page.get_by_role("link", name="Machines").press("Enter")
    page.get_by_text("No machine judges yet").wait_for()
    looks_well()
    on(page, "Short name", "strict")
    on(page, "Or a server's address", "https://8.8.8.8/v1")
    on(page, "The model's name there", "m")
    press(page, "Register")
    page.get_by_text("strict v1 is there").wait_for()
    looks_well()
    on(page, "Requests a minute", "30")
    press(page, "Launch")
    page.get_by_text("is queued; a worker takes it").wait_for()
    job = Job.objects.get()
    assert job.payload["bounds"] == {"requests_per_minute": 30.0}

    judge = JudgeVersion.objects.get()
    rows = [
        {
            "id": pair.digest, "choice": "first", "flipped": False, "orders": ["first", "first"],
            "probability": None, "reasons": [UGLY, UGLY], "tokens": 10,
        }
        for pair in pairs
    ]  # fmt: skip
    store_machine_judgments(judge=judge, project=project, rows=rows)
    counts = {"step": 7, "total_steps": 25, "flipped": 1, "failed": 2, "tokens": 9000, "cost": 0.1}
    Job.objects.update(outcome=counts)
    page.get_by_role("link", name="Look again").press("Enter")
    page.get_by_text("7 of 25").wait_for()
    looks_well()
    press(page, "Cancel")
    page.wait_for_url("**/jobs/*/")
    looks_well()
    page.goto(f"{live_server.url}/projects/helpful/judges/{judge.pk}/")
    on(page, "Why this agreement is enough", UGLY)
    press(page, "Accept for training")
    page.get_by_text("is accepted on 25 comparisons").wait_for()
    looks_well()
    assert Calibration.objects.get().reason.startswith("Because")
    page.get_by_role("link", name="Machine judges").press("Enter")
    page.get_by_role("cell", name="Accepted").wait_for()
    looks_well()

    page.goto(f"{live_server.url}/projects/helpful/")
    looks_well()
    page.get_by_label("Where no person judged").focus()
    page.keyboard.type("strict v1")
    press(page, "Freeze a snapshot now")
    page.get_by_role("heading", name="Judged by a machine").wait_for()
    looks_well()
    assert Snapshot.objects.get().summary["by_machine"] > 0
