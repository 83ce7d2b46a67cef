"""The next screen without waiting, and answers that no network, reload or sign-out can lose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import Answer, Assignment, Comparison, Flag, Judgment, Project
from rlhf_platform.accounts.secrets import make_sign_in_link
from tests.browser.test_judging_by_keyboard import judged, pytestmark, quiet_page  # noqa: F401
from tests.factories import make_comparison, make_project
from tests.people import make_people

#: What the browser's console says of requests that a test makes fail.
PROVOKED = r"Failed to load resource: (net::ERR_|the server responded with a status of (4|5)\d\d)"
#: So many open comparisons that nine are held ahead.
MANY = 105


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    with quiet_page(monkeypatch, expected=PROVOKED) as opened:
        yield opened


def open_queue(page: Page, server: LiveServer, comparisons: int = 5, **fields: Any) -> Project:
    """Bob before the first of so many comparisons."""
    people = make_people()
    project = make_project(people.workspace, **fields)
    for number in range(comparisons):
        make_comparison(
            project, prompt=f"Question {number}?", a=f"It is one {number}", b="It is two two"
        )
    page.goto(f"{server.url}/sign-in/{make_sign_in_link(user=people.bob)}/")
    page.get_by_role("button", name="Sign in").press("Enter")
    page.wait_for_url("**/judge/")
    enter(page, server)
    return project


def enter(page: Page, server: LiveServer) -> None:
    page.goto(f"{server.url}/judge/helpful/")
    page.locator("#judge[data-ready]").wait_for()


def say(page: Page, key: str) -> int:
    """Answer by keyboard; returns which assignment was on the screen."""
    on_screen = page.locator("#answer-form input[name=assignment]")
    assignment = on_screen.get_attribute("value")
    page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(on_screen).not_to_have_value(str(assignment))
    return int(str(assignment))


def stored() -> list[int | None]:
    return list(Judgment.objects.order_by("pk").values_list("assignment_id", flat=True))


def unsent(page: Page, count: int) -> None:
    expect(page.locator("#unsent")).to_have_text(f"{count} unsent")
    expect(page.locator("#unsent")).to_be_visible(visible=count > 0)


def test_ten_judgments_without_a_network_are_stored_once_and_in_order(
    page: Page, live_server: LiveServer
) -> None:
    open_queue(page, live_server, MANY)
    page.context.set_offline(True)
    said = [say(page, "120="[number % 4]) for number in range(9)]
    on_screen = page.locator("#answer-form input[name=assignment]").get_attribute("value")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    unsent(page, 10)
    expect(page.locator("#offline")).to_contain_text("cannot be reached")
    assert stored() == []
    page.context.set_offline(False)
    judged(page, 10)
    assert stored() == [*said, int(str(on_screen))]
    unsent(page, 0)
    expect(page.locator("#offline")).to_be_hidden()
    # It goes on by itself where nothing was left ahead.
    page.locator("#answer-form").wait_for(state="attached")


def test_an_unsent_answer_is_taken_back_without_the_server(
    page: Page, live_server: LiveServer
) -> None:
    open_queue(page, live_server, 40)
    page.context.set_offline(True)
    first, second = say(page, "1"), say(page, "1")
    unsent(page, 2)
    page.keyboard.press("u")
    on_screen = page.locator("#answer-form input[name=assignment]")
    expect(on_screen).to_have_value(str(second))
    unsent(page, 1)
    expect(page.locator("input[name=answer]:checked")).to_have_value("left")
    assert say(page, "=") == second
    page.context.set_offline(False)
    judged(page, 2)
    assert stored() == [first, second]
    assert Judgment.objects.get(assignment=second).answer == Answer.TIE
    assert not Judgment.objects.filter(answer=Answer.WITHDRAWN).exists()


def test_a_stored_answer_is_taken_back_and_given_anew(page: Page, live_server: LiveServer) -> None:
    open_queue(page, live_server, 40)
    first = say(page, "0")
    judged(page, 1)
    page.keyboard.press("u")
    expect(page.locator("#answer-form input[name=assignment]")).to_have_value(str(first))
    judged(page, 0)
    assert say(page, "=") == first
    judged(page, 1)
    standing = Judgment.objects.current().get()
    assert (standing.assignment_id, standing.answer) == (first, Answer.TIE)
    assert Judgment.objects.count() == 3
    # What was on the screen meanwhile is next again, and can be answered.
    say(page, "=")
    judged(page, 2)


def test_unsent_answers_outlive_a_reload(page: Page, live_server: LiveServer) -> None:
    open_queue(page, live_server, 40)
    page.route("**/answer", lambda route: route.abort())
    said = [say(page, key) for key in "120"]
    unsent(page, 3)
    page.unroute("**/answer")
    page.reload()
    judged(page, 3)
    assert stored() == said
    # The screen has moved past what was answered.
    on_screen = page.locator("#answer-form input[name=assignment]")
    assert int(str(on_screen.get_attribute("value"))) not in said


def test_a_lost_reply_stores_nothing_twice(page: Page, live_server: LiveServer) -> None:
    open_queue(page, live_server, 40)
    lost: list[bool] = []

    def lose_the_first(route: Any) -> None:
        route.fetch()
        if lost:
            route.fallback()
        else:
            lost.append(True)
            route.abort()

    page.route("**/answer", lose_the_first)
    first = say(page, "1")
    judged(page, 1)
    assert stored() == [first]


def test_what_is_refused_is_shown_and_can_be_sent_again(
    page: Page, live_server: LiveServer
) -> None:
    project = open_queue(page, live_server, 40)
    Project.objects.filter(pk=project.pk).update(state="paused")
    first = say(page, "1")
    expect(page.locator("#refused")).to_contain_text("Not stored: your answer")
    expect(page.locator("#refused")).to_contain_text("paused")
    assert stored() == []
    page.reload()  # and it is not forgotten
    Project.objects.filter(pk=project.pk).update(state="open")
    page.locator("#refused").get_by_role("button", name="Send again").press("Enter")
    judged(page, 1)
    assert stored() == [first]
    expect(page.locator("#refused")).to_be_empty()


def test_whoever_is_signed_out_is_told_and_loses_nothing(
    page: Page, live_server: LiveServer
) -> None:
    open_queue(page, live_server, 40)
    cookies = page.context.cookies()
    page.context.clear_cookies()
    first = say(page, "2")
    expect(page.locator("#signed-out")).to_be_visible()
    assert stored() == []
    page.context.add_cookies(cookies)  # as a sign-in in another tab does
    judged(page, 1)
    assert stored() == [first]
    expect(page.locator("#signed-out")).to_be_hidden()


def test_without_indexeddb_each_answer_waits_for_its_reply(
    page: Page, live_server: LiveServer
) -> None:
    page.add_init_script("Object.defineProperty(window, 'indexedDB', { value: undefined })")
    open_queue(page, live_server, 40)
    said = []
    for count, key in enumerate("120", start=1):
        said.append(say(page, key))
        assert len(stored()) == count  # before the next one was shown
    assert stored() == said


def test_nothing_is_leased_ahead_near_the_end_and_all_is_judged(
    page: Page, live_server: LiveServer
) -> None:
    open_queue(page, live_server, 4)
    assert Assignment.objects.count() == 1
    for count in range(1, 5):
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        judged(page, count)
    page.get_by_text("Nothing left for you here").wait_for()
    assert not Comparison.objects.filter(slots__gt=0).exists()


def test_skip_and_flag_by_keyboard(page: Page, live_server: LiveServer) -> None:
    open_queue(page, live_server, 40)
    on_screen = page.locator("#answer-form input[name=assignment]")
    first = int(str(on_screen.get_attribute("value")))
    page.keyboard.press("f")
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.type("s = a phone number 1")
    page.keyboard.press("Enter")
    page.get_by_text("Flagged: the admins see it.").wait_for()
    expect(on_screen).to_have_value(str(first))
    page.keyboard.press("s")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(on_screen).not_to_have_value(str(first))
    expect(page.locator("#to-go")).to_have_text("39 to go")
    skipped = Assignment.objects.get(pk=first)
    assert (skipped.state, skipped.skip_reason) == ("skipped", "language")
    flag = Flag.objects.get()
    assert (flag.comparison_id, flag.kind) == (skipped.comparison_id, "unsafe")
    assert flag.note == "s = a phone number 1"
    page.keyboard.press("u")
    page.get_by_text("A skip that was sent cannot be taken back").wait_for()


def test_keys_can_be_changed_and_switched_off(page: Page, live_server: LiveServer) -> None:
    open_queue(page, live_server, 4)
    page.keyboard.press("?")
    page.get_by_label("Key for: tie").press("x")
    page.get_by_label("Key for: skip").press("x")
    expect(page.locator("#keys-problem")).to_contain_text("X is taken already")
    page.keyboard.press("Escape")
    page.reload()
    page.locator("#judge[data-ready]").wait_for()
    chosen = page.locator("input[name=answer]:checked")
    page.keyboard.press("=")
    assert chosen.count() == 0
    page.keyboard.press("x")
    expect(chosen).to_have_value("tie")
    page.keyboard.press("?")
    page.get_by_label("Single keys are on").press("Space")
    page.keyboard.press("Escape")
    for key in ("1", "s", "f", "g", "?", "u"):
        page.keyboard.press(key)
    expect(chosen).to_have_value("tie")
    assert page.locator("dialog[open], details.aside[open]").count() == 0
    page.keyboard.press("ArrowLeft")
    expect(chosen).to_have_value("left")
    page.keyboard.press("Enter")
    judged(page, 1)


def test_what_was_typed_is_kept_over_a_reload(page: Page, live_server: LiveServer) -> None:
    open_queue(page, live_server, 4)
    page.keyboard.press("2")
    page.locator("#judge summary", has_text="Why").press("Enter")
    page.locator("textarea").press_sequentially("clearer")
    page.reload()
    page.locator("#judge[data-ready]").wait_for()
    expect(page.locator("textarea")).to_have_value("clearer")
    expect(page.locator("input[name=answer]:checked")).to_have_value("right")
    page.locator("#judge").focus()
    page.keyboard.press("Enter")
    judged(page, 1)
    assert Judgment.objects.get().rationale == "clearer"
    assert page.evaluate("Object.keys(localStorage).filter((k) => k.includes('draft'))") == []


def test_differing_words_are_marked_and_texts_zoomed(page: Page, live_server: LiveServer) -> None:
    open_queue(page, live_server, 1)
    page.keyboard.press("d")
    marked = "[...(CSS.highlights.get('differs') ?? [])].map(String).sort()"
    page.wait_for_function(f"{marked}.length > 0")
    assert page.evaluate(marked) == ["0", "one", "two", "two"]
    page.keyboard.press("d")
    assert page.evaluate(marked) == []
    page.keyboard.press("z")
    expect(page.locator(".conversation")).to_be_hidden()
    page.keyboard.press("z")
    expect(page.locator(".conversation")).to_be_visible()


def test_guidelines_say_what_changed(page: Page, live_server: LiveServer) -> None:
    project = open_queue(page, live_server, 4)
    project.guidelines.create(version=2, text="Prefer the safer answer.")
    page.keyboard.press("g")
    drawer = page.locator("#guidelines")
    expect(drawer).to_contain_text("Prefer the more helpful answer.")
    expect(drawer.locator("ins")).to_have_text("safer")
    assert "helpful" in drawer.locator("del").all_inner_texts()[-1]
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    page.keyboard.press("1")
    page.keyboard.press("Enter")  # what comes next is asked under the new version
    page.get_by_text("The guidelines have changed").wait_for()
    page.keyboard.press("g")
    expect(page.locator("#guidelines-now")).to_contain_text("Prefer the safer answer.")


def test_a_phone_shows_one_answer_at_a_time_over_a_bar_that_stays(
    page: Page, live_server: LiveServer
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_queue(page, live_server, 40)
    left, right = page.locator("#left"), page.locator("#right")
    expect(left).to_be_in_viewport(ratio=0.4)
    expect(right).not_to_be_in_viewport(ratio=0.2)
    page.get_by_role("link", name="Read B").press("Enter")
    expect(right).to_be_in_viewport(ratio=0.4)
    expect(page.get_by_role("link", name="Read B")).to_have_attribute("aria-current", "true")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for count, name in enumerate(("A is better", "Tie", "B is better", "Both bad"), start=1):
        page.get_by_role("radio", name=name).check(force=True)
        page.get_by_role("button", name="Send").press("Enter")
        judged(page, count)
    for summary in ("Skip", "Flag"):
        page.locator("summary", has_text=summary).press("Enter")
        expect(page.locator("details.aside[open] form")).to_be_in_viewport(ratio=0.99)
        page.keyboard.press("Escape")


def test_plain_forms_do_everything(
    monkeypatch: pytest.MonkeyPatch, live_server: LiveServer
) -> None:
    with quiet_page(monkeypatch, java_script_enabled=False) as page:
        people = make_people()
        project = make_project(people.workspace)
        for number in range(4):
            make_comparison(project, prompt=f"Question {number}?")
        page.goto(f"{live_server.url}/sign-in/{make_sign_in_link(user=people.bob)}/")
        page.get_by_role("button", name="Sign in").press("Enter")
        page.goto(f"{live_server.url}/judge/helpful/")
        page.get_by_role("radio", name="Tie").check(force=True)
        page.get_by_role("button", name="Send").press("Enter")
        page.get_by_text("1 judged today").wait_for()
        page.get_by_role("button", name="Take the last one back").press("Enter")
        page.get_by_text("0 judged today").wait_for()
        page.locator("summary", has_text="Flag").press("Enter")
        page.get_by_label("Broken").press("Space")
        page.get_by_role("button", name="Flag it").press("Enter")
        page.get_by_text("Flagged: the admins see it.").wait_for()
        page.locator("summary", has_text="Skip").press("Enter")
        page.get_by_label("It is unclear what is asked").press("Space")
        page.get_by_role("button", name="Skip it").press("Enter")
        page.get_by_text("3 to go").wait_for()
        assert Assignment.objects.filter(skip_reason="unclear").count() == 1
        assert Flag.objects.get().kind == "broken"
        page.get_by_role("link", name="Guidelines").press("Enter")
        page.get_by_text("They have not changed so far.").wait_for()
