"""From a described case to an evaluated model in a real Chromium, without a mouse."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page
from pytest_django.live_server_helper import LiveServer

from annotate.services.freezing import freeze_snapshot
from rlhf_platform.accounts.secrets import make_sign_in_link
from tests.browser.test_judging_by_keyboard import page, pytestmark  # noqa: F401
from tests.flows.test_single_runs import work_off_the_queue
from tests.people import make_people
from tests.training.test_launching_runs import make_labelled
from training.models import ModelVersion, Run


def fill(page: Page, label: str, text: str) -> None:  # noqa: F811
    """Type into a field."""
    page.get_by_label(label, exact=True).focus()
    page.keyboard.type(text)


def choose(page: Page, label: str, words: str) -> None:  # noqa: F811
    """Go down a list to the option that begins with these words."""
    field = page.get_by_label(label, exact=True)
    field.focus()
    page.keyboard.press("Home")
    for _ in range(field.locator("option").count()):
        if field.evaluate("e => e.selectedOptions[0].label").startswith(words):
            return
        page.keyboard.press("ArrowDown")
    raise AssertionError(f"{label} offers nothing that begins with {words!r}")


def test_a_case_becomes_an_evaluated_classifier(
    page: Page,  # noqa: F811
    live_server: LiveServer,
    tmp_path: Path,
) -> None:
    page.set_default_timeout(120_000)
    people = make_people()
    snapshot = freeze_snapshot(project=make_labelled(people, tmp_path), test_fraction=0.3)
    page.goto(f"{live_server.url}/sign-in/{make_sign_in_link(user=people.rita)}/")
    page.get_by_role("button", name="Sign in").press("Enter")
    page.wait_for_url("**/projects/")

    # 1. Describe the case.
    page.get_by_role("link", name="Advise", exact=True).press("Enter")
    choose(page, "What should the model do?", "classification")
    fill(page, "Examples with the answer you want", "2000")
    fill(page, "Or another base by its name", "minilm")
    choose(page, "The device", "a processor")
    fill(page, "Its memory in GB", "4")
    page.get_by_label("Its memory in GB", exact=True).press("Enter")

    # 2. The advice, and the plan of its first run.
    page.get_by_role("heading", name="First: classification fine-tuning of an encoder").wait_for()
    page.get_by_role("button", name="Plan its memory").press("Enter")
    page.get_by_text("✓ fits", exact=True).wait_for()

    # 3. Launch the preset: only the rows are still to be chosen.
    page.get_by_role("link", name="Launch it").press("Enter")
    assert page.get_by_label("Or from a new base", exact=True).input_value() == "minilm"
    choose(page, "Snapshot", str(snapshot))
    page.get_by_role("button", name="Launch").press("Enter")
    page.get_by_text("Launched.").wait_for()
    assert page.url.endswith(f"/runs/{Run.objects.get().pk}/")
    run = Run.objects.get()
    assert (run.method, run.snapshot, run.config["tuning"]) == ("classify", snapshot, "full")
    assert run.config["base"]["source"] == "minilm"

    # 4. A worker does it, and the page shows what came of it.
    work_off_the_queue()
    run.refresh_from_db()
    assert run.job.state == "succeeded", run.job.detail
    page.reload()
    page.get_by_role("heading", name="What it measured").wait_for()
    row = page.get_by_role("row").filter(has=page.get_by_text("classify/accuracy", exact=True))
    assert row.count() == 1
    page.get_by_role("heading", name="Class by class").wait_for()
    assert run.output is not None
    assert run.output.kind == ModelVersion.Kind.CLASSIFIER
