"""A real Chromium and no mouse: sign in by link, judge every way, take one back."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from annotate.models import Answer, Judgment
from rlhf_platform.accounts.secrets import make_sign_in_link
from tests.factories import make_comparison, make_project
from tests.people import make_people

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium was found"),
]
#: How long a browser may take for one thing on a busy machine, in milliseconds.
PATIENCE_MS = 120_000
expect.set_options(timeout=PATIENCE_MS)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def quiet_page(
    monkeypatch: pytest.MonkeyPatch, *, expected: str = "never said", **options: Any
) -> Iterator[Page]:
    """A page whose console must stay silent: errors and policy violations fail the test.

    `expected` is a pattern of what a test provokes itself.
    """
    # Playwright runs an event loop in this thread; Django's queries here are still synchronous.
    monkeypatch.setitem(os.environ, "DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        options = {"viewport": {"width": 1280, "height": 800}, **options}
        opened = browser.new_page(**options)
        opened.set_default_timeout(PATIENCE_MS)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on(
            "console",
            lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None,
        )
        yield opened
        browser.close()
    assert [said for said in complaints if not re.search(expected, said)] == []


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    with quiet_page(monkeypatch) as opened:
        yield opened


def judged(page: Page, count: int) -> None:
    page.get_by_text(f"{count} judged today").wait_for()


def test_a_keyboard_is_enough(page: Page, live_server: LiveServer) -> None:
    people = make_people()
    project = make_project(people.workspace)
    hostile = "<img src=x onerror='window.pwned=1'> [x](javascript:window.pwned=1)"
    for number in range(5):
        make_comparison(project, prompt=f"Question {number}?", a=hostile, b=f"answer {number}")
    page.goto(f"{live_server.url}/sign-in/{make_sign_in_link(user=people.bob)}/")
    page.get_by_role("button", name="Sign in").press("Enter")
    page.wait_for_url("**/judge/")
    page.goto(f"{live_server.url}/judge/helpful/")
    judged(page, 0)
    for count, key in enumerate(["1", "2", "=", "0"], start=1):
        page.keyboard.press(key)
        page.keyboard.press("Enter")
        judged(page, count)
    answers = list(Judgment.objects.order_by("pk").values_list("answer", flat=True))
    assert {answers[0], answers[1]} <= {Answer.A, Answer.B}
    assert answers[2:] == [Answer.TIE, Answer.BOTH_BAD]
    assert Judgment.objects.filter(active_ms__isnull=True).count() == 0

    page.keyboard.press("u")
    judged(page, 3)
    assert Judgment.objects.filter(answer=Answer.WITHDRAWN).count() == 1

    # Keys do nothing while somebody types.
    chosen = page.locator("input[name=answer]:checked")
    assert chosen.get_attribute("value") == "both_bad"  # as it was when it was sent
    page.locator("#judge summary", has_text="Why").focus()
    page.keyboard.press("Enter")
    page.locator("textarea").focus()
    page.keyboard.type("1 = s f u ? z d g")
    assert chosen.get_attribute("value") == "both_bad"
    assert page.locator("dialog[open], details.aside[open]").count() == 0
    assert page.locator("textarea").input_value() == "1 = s f u ? z d g"
    assert page.evaluate("window.pwned") is None


def test_a_narrow_screen_does_not_scroll_sideways(page: Page, live_server: LiveServer) -> None:
    people = make_people()
    wide = "| a | b |\n|---|---|\n| " + "x" * 300 + " | y |\n\n```\n" + "code " * 80 + "\n```"
    make_comparison(make_project(people.workspace), a=wide, b="")
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{live_server.url}/sign-in/{make_sign_in_link(user=people.bob)}/")
    page.get_by_role("button", name="Sign in").press("Enter")
    page.wait_for_url("**/judge/")
    page.goto(f"{live_server.url}/judge/helpful/")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.get_by_text("(empty response)").count() == 1
