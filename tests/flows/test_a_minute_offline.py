"""A real minute without a network: ten judgments, a lease ahead each, and none lost or doubled.

What is leased ahead lives a minute, so by the end the server has had every right to think that
nobody is there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import Answer, Judgment
from tests.annotate.services.leases import overlap_holds
from tests.browser.test_instant import MANY, PROVOKED, open_queue, say, stored, unsent
from tests.browser.test_judging_by_keyboard import judged, pytestmark, quiet_page  # noqa: F401

#: Ten times this is more than the minute for which a lease ahead lives.
READING_MS = 6_200


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    with quiet_page(monkeypatch, expected=PROVOKED) as opened:
        yield opened


def test_ten_judgments_in_a_minute_offline_are_stored_once_and_in_order(
    page: Page, live_server: LiveServer
) -> None:
    open_queue(page, live_server, MANY)
    page.context.set_offline(True)
    said = []
    for number in range(9):
        page.wait_for_timeout(READING_MS)
        said.append(say(page, "120="[number % 4]))
    page.wait_for_timeout(READING_MS)
    on_screen = page.locator("#answer-form input[name=assignment]").get_attribute("value")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    unsent(page, 10)
    expect(page.locator("#offline")).to_contain_text("cannot be reached")
    assert stored() == []
    page.context.set_offline(False)
    judged(page, 10)
    unsent(page, 0)
    assert stored() == [*said, int(str(on_screen))]
    both_bad = Judgment.objects.filter(answer=Answer.BOTH_BAD).count()
    assert (both_bad, Judgment.objects.filter(answer=Answer.TIE).count()) == (2, 2)
    assert all(overlap_holds(each.comparison) for each in Judgment.objects.all())
