"""Every answer kind in a real Chromium by keyboard alone, three judgments each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Page
from pytest_django.live_server_helper import LiveServer

from annotate.models import Comparison, Judgment
from annotate.services.projects import create_project
from annotate.services.rankings import import_rankings
from rlhf_platform.accounts.secrets import make_sign_in_link
from tests.browser.test_judging_by_keyboard import judged, page, pytestmark  # noqa: F401
from tests.factories import make_comparison
from tests.people import make_people

#: Offsets in code points and in UTF-16 differ after the first word.
LEFT = "🍷 Blot it with salt, then rinse it."
TEXTS = ["best", "good", "poor", "worst"]


def opened(page: Page, server: LiveServer, form: dict[str, Any], kind: str = "comparisons") -> None:  # noqa: F811
    """Bob before the first of four in a project that asks this."""
    people = make_people()
    project = create_project(
        workspace=people.workspace, name="Asked", slug="asked", form=form, kind=kind
    )
    if kind == "rankings":
        rows = [{"prompt": f"Question {n}?", "responses": TEXTS} for n in range(4)]
        path = Path(server.data_dir) / "rows.jsonl"  # type: ignore[attr-defined]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        import_rankings(project=project, path=path)
    else:
        for number in range(4):
            make_comparison(project, prompt=f"Question {number}?", a=LEFT, b=LEFT[:-1] + "!")
    page.goto(f"{server.url}/sign-in/{make_sign_in_link(user=people.bob)}/")
    page.get_by_role("button", name="Sign in").press("Enter")
    page.wait_for_url("**/judge/")
    page.goto(f"{server.url}/judge/asked/")
    judged(page, 0)


def said() -> Iterator[Judgment]:
    return Judgment.objects.filter(comparison__group=None).order_by("pk").iterator()


def side_of(judgment: Judgment) -> str:
    return "left" if (judgment.answer == "a") != judgment.swapped else "right"


def test_a_step_is_an_answer(page: Page, live_server: LiveServer) -> None:  # noqa: F811
    opened(page, live_server, {"strength": 8})
    page.keyboard.press("ArrowRight")  # the smallest step to the right
    page.keyboard.press("Enter")
    judged(page, 1)
    page.keyboard.press("1")  # A much better
    page.keyboard.press("Enter")
    judged(page, 2)
    page.keyboard.press("8")
    page.keyboard.press("=")  # a tie after all: the step goes
    page.keyboard.press("Enter")
    judged(page, 3)
    first, second, third = said()
    assert (side_of(first), abs(first.strength or 0)) == ("right", 1)
    assert (side_of(second), abs(second.strength or 0)) == ("left", 4)
    assert (third.answer, third.strength) == ("tie", None)


def test_aspects_ratings_reasons_and_a_reason(page: Page, live_server: LiveServer) -> None:  # noqa: F811
    form = {
        "aspects": [{"name": "helpful"}],
        "ratings": [{"name": "overall", "low": 1, "high": 3}],
        "reasons": ["tone"],
        "rationale": "required",
        "rationale_min": 5,
        "known_model": True,
        "conditions": [{"show": "reasons", "when": {"answer": ["tie"]}}],
    }
    opened(page, live_server, form)
    for count, key in enumerate(["1", "2", "="], start=1):
        page.keyboard.press(key)
        assert page.locator("[data-question=reasons]").is_visible() == (key == "=")
        page.keyboard.press("Enter")  # held back: something is missing
        page.locator('input[name="aspect:helpful"]').first.focus()
        page.keyboard.press("Space")
        for side in ("left", "right"):
            page.locator(f'input[name="rating:{side}:overall"]').first.focus()
            page.keyboard.press("ArrowRight")
        if key == "=":
            page.locator("input[name=reasons]").focus()
            page.keyboard.press("Space")
        page.locator("textarea[name=rationale]").focus()
        page.keyboard.type("because 1 = 2")
        page.locator("input[name=known_model]").focus()
        page.keyboard.press("Space")
        page.locator("textarea[name=rationale]").focus()
        page.keyboard.press("Control+Enter")
        judged(page, count)
    for judgment in said():
        details = judgment.details
        assert details["ratings"] == {"a": {"overall": 2}, "b": {"overall": 2}}
        assert details["aspects"]["helpful"] == ("b" if judgment.swapped else "a")
        assert details["known_model"] is True
        assert judgment.rationale == "because 1 = 2"
        assert ("reasons" in details) == (judgment.answer == "tie")


def test_a_rewrite_and_marks(page: Page, live_server: LiveServer) -> None:  # noqa: F811
    form = {
        "rewrite": "required",
        "spans": ["error", "unsafe"],
        "conditions": [{"show": "rewrite", "when": {"answer": ["left", "right"]}}],
    }
    opened(page, live_server, form)
    for count in (1, 2, 3):
        page.keyboard.press("1")
        area = page.locator("textarea[name=rewrite]")
        area.focus()
        page.keyboard.press("End")
        page.keyboard.press("Control+End")
        page.keyboard.type(" Hang it up.")
        assert page.locator(".diff ins").last.text_content() == "up."
        page.locator(".markable[data-side=left]").focus()
        for _ in range(2):
            page.keyboard.press("ArrowRight")
        for _ in range(3):
            page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Space")
        assert page.locator(".marks li").count() == 1
        area.focus()
        page.keyboard.press("Control+Enter")
        judged(page, count)
    for judgment in said():
        a, b = judgment.comparison.pair
        better = "a" if judgment.answer == "a" else "b"
        text = {"a": a.text, "b": b.text}
        rewrite = judgment.details["rewrite"]
        assert (rewrite["of"], rewrite["text"]) == (better, f"{text[better]} Hang it up.")
        (span,) = judgment.details["spans"]
        assert span["on"] == better
        assert text[better][span["start"] : span["end"]] == "Blot it"


def test_an_order_by_digits_and_arrows(page: Page, live_server: LiveServer, tmp_path: Path) -> None:  # noqa: F811
    live_server.data_dir = tmp_path  # type: ignore[attr-defined]
    opened(page, live_server, {}, kind="rankings")
    for count in (1, 2, 3):
        cards = page.locator("[data-ranking] .answer")
        shown = [cards.nth(n).locator(".text").inner_text().strip() for n in range(4)]
        page.keyboard.press("ArrowRight")  # to the first response
        for text in shown:
            page.keyboard.press(str(TEXTS.index(text) + 1))
        if count == 3:  # the chip of the last place moves up: a tie
            letter = "ABCD"[shown.index("worst")]
            page.locator(".order .chip", has_text=letter).focus()
            page.keyboard.press("ArrowLeft")
            page.locator("#judge").focus()
        page.keyboard.press("Enter")
        judged(page, count)
    for number, judgment in enumerate(said(), start=1):
        stored = {row.position: row.response.text for row in judgment.comparison.candidates.all()}
        order = [sorted(stored[p] for p in tied) for tied in judgment.details["ranking"]]
        tied = [["best"], ["good"], ["poor", "worst"]]
        assert order == (tied if number == 3 else [[text] for text in TEXTS])
    pairs = Comparison.objects.filter(group__isnull=False, judgments__isnull=False)
    assert pairs.count() == 18
    page.set_viewport_size({"width": 390, "height": 844})
    page.keyboard.press("u")
    judged(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
