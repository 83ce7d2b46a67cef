"""A project of labels in a real Chromium and by keyboard alone: made, filled, judged, measured."""

from __future__ import annotations

import html
from pathlib import Path

import pytest
from playwright.sync_api import Page
from pytest_django.live_server_helper import LiveServer

from annotate.models import Answer, Comparison, Judgment, Project
from annotate.services.labels import labels_from_text
from annotate.services.projects import create_project
from annotate.services.texts import import_texts
from rlhf_platform.accounts.secrets import make_sign_in_link
from tests.browser.test_judging_by_keyboard import judged, page, pytestmark  # noqa: F401
from tests.people import make_people

SMS = Path(__file__).parents[1] / "data" / "sms" / "spam.tsv"


@pytest.fixture
def labelling(page: Page, live_server: LiveServer) -> Page:  # noqa: F811
    """Bob before the first of 40 messages."""
    people = make_people()
    project = create_project(
        workspace=people.workspace,
        name="Spam",
        slug="spam",
        kind="labels",
        labels=labels_from_text("ham: somebody wrote it\nspam: advertising\nunsure [x]"),
    )
    import_texts(project=project, path=SMS)
    page.goto(f"{live_server.url}/sign-in/{make_sign_in_link(user=people.bob)}/")
    page.get_by_role("button", name="Sign in").press("Enter")
    page.wait_for_url("**/judge/")
    page.goto(f"{live_server.url}/judge/spam/")
    judged(page, 0)
    return page


def test_digits_and_enter_are_enough(labelling: Page) -> None:
    for count, key in enumerate(["1", "2", "x"], start=1):
        labelling.keyboard.press(key)
        labelling.keyboard.press("Enter")
        judged(labelling, count)
    said = list(Judgment.objects.order_by("pk").values_list("answer", "label"))
    assert said == [("label", "ham"), ("label", "spam"), ("label", "unsure")]
    assert not Judgment.objects.filter(active_ms__isnull=True).exists()
    # A key of the other screen, and a digit beyond the list, choose nothing.
    for key in ("=", "4", "ArrowLeft"):
        labelling.keyboard.press(key)
    assert labelling.locator("input[name=answer]:checked").count() == 0
    labelling.keyboard.press("u")
    judged(labelling, 2)
    assert Judgment.objects.filter(answer=Answer.WITHDRAWN).count() == 1


def test_the_known_label_is_on_no_annotators_page(labelling: Page) -> None:
    item = Comparison.objects.filter(slots=0).select_related("prompt").get()
    assert item.known_label in ("ham", "spam")
    # Entities of the source are drawn as what they stand for.
    words = html.unescape(item.prompt.messages[0]["content"])[:20]
    assert labelling.get_by_text(words).count() == 1
    assert "known" not in labelling.content().lower()
    assert Project.objects.get().noun == "text"


def test_a_narrow_screen_holds_it(labelling: Page) -> None:
    labelling.set_viewport_size({"width": 390, "height": 844})
    assert labelling.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert labelling.get_by_role("button", name="Send").is_visible()
