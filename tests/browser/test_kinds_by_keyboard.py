"""Every answer kind in a real Chromium by keyboard alone, twenty judgments each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import Answer, Comparison, Judgment, Project
from annotate.services.labels import labels_from_text
from annotate.services.projects import create_project
from annotate.services.rankings import import_rankings
from annotate.services.texts import store_texts
from rlhf_platform.accounts.secrets import make_sign_in_link
from tests.annotate.services.crowd import text_record
from tests.browser.test_judging_by_keyboard import judged, page, pytestmark  # noqa: F401
from tests.factories import make_comparison
from tests.people import make_people

JUDGMENTS = 20
#: Offsets in code points and in UTF-16 differ after the first word.
LEFT = "🍷 Blot it with salt, then rinse it."
TEXTS = ["best", "good", "fair", "plain", "weak", "poor", "bad", "worse", "worst"]
#: Key, and what it says.
FOUR = [("1", "left"), ("2", "right"), ("=", "tie"), ("0", "both_bad")]


def opened(page: Page, server: LiveServer, kind: str = "comparisons", **fields: Any) -> Project:  # noqa: F811
    """Bob before the first of twenty-one in a project that asks this."""
    people = make_people()
    project = create_project(
        workspace=people.workspace, name="Asked", slug="asked", kind=kind, **fields
    )
    if kind == "labels":
        store_texts(project=project, records=[text_record(n) for n in range(JUDGMENTS + 1)])
    elif kind == "comparisons":
        for number in range(JUDGMENTS + 1):
            make_comparison(project, prompt=f"Question {number}?", a=LEFT, b=LEFT[:-1] + "!")
    page.goto(f"{server.url}/sign-in/{make_sign_in_link(user=people.bob)}/")
    page.get_by_role("button", name="Sign in").press("Enter")
    page.wait_for_url("**/judge/")
    if kind != "rankings":
        page.goto(f"{server.url}/judge/asked/")
        judged(page, 0)
    return project


def said() -> Iterator[Judgment]:
    return Judgment.objects.filter(comparison__group=None).order_by("pk").iterator()


def on_screen(judgment: Judgment) -> str:
    if judgment.answer in (Answer.TIE, Answer.BOTH_BAD):
        return judgment.answer
    return "left" if (judgment.answer == "a") != judgment.swapped else "right"


def focus(page: Page, selector: str, at: int = 0) -> None:  # noqa: F811
    page.locator(selector).nth(at).focus()


def test_a_or_b_a_tie_or_both_bad(page: Page, live_server: LiveServer) -> None:  # noqa: F811
    opened(page, live_server)
    keys = [*FOUR, ("ArrowLeft", "left"), ("ArrowRight", "right")]
    expected = []
    for count in range(1, JUDGMENTS + 1):
        key, answer = keys[count % len(keys)]
        page.keyboard.press(key)
        page.keyboard.press("Enter")
        judged(page, count)
        expected.append(answer)
    assert [on_screen(judgment) for judgment in said()] == expected
    page.keyboard.press("u")
    judged(page, JUDGMENTS - 1)
    page.keyboard.press("=")
    page.keyboard.press("Enter")
    judged(page, JUDGMENTS)
    assert Judgment.objects.current().order_by("-pk")[0].answer == Answer.TIE


@pytest.mark.parametrize(("steps", "judgments"), [(4, 5), (8, JUDGMENTS)])
def test_a_step_is_an_answer(
    page: Page,  # noqa: F811
    live_server: LiveServer,
    steps: int,
    judgments: int,
) -> None:
    opened(page, live_server, form={"strength": steps})
    half = steps // 2
    by_digit = [*range(-half, 0), *range(1, half + 1)]
    expected: list[tuple[str, int | None]] = []
    for count in range(1, judgments + 1):
        if count % 5 == 0:
            page.keyboard.press("1")
            page.keyboard.press("=")  # a tie after all: the step goes
            expected.append(("tie", None))
        elif count % 5 == 1:
            page.keyboard.press("ArrowRight")  # the smallest step to the right
            page.keyboard.press("ArrowRight")
            expected.append(("right", min(2, half)))
        else:
            step = by_digit[count % steps]
            page.keyboard.press(str(count % steps + 1))
            expected.append(("left" if step < 0 else "right", abs(step)))
        page.keyboard.press("Enter")
        judged(page, count)
    found = [
        (on_screen(each), abs(each.strength) if each.strength is not None else None)
        for each in said()
    ]
    assert found == expected


def test_aspects_and_ratings(page: Page, live_server: LiveServer) -> None:  # noqa: F811
    scale = {"name": "overall", "low": 1, "high": 3}
    aspects = [{"name": "helpful"}, {"name": "correct", "definition": "No false claims."}]
    opened(page, live_server, form={"aspects": aspects, "ratings": [scale]})
    for count in range(1, JUDGMENTS + 1):
        page.keyboard.press(FOUR[count % 4][0])
        page.keyboard.press("Enter")  # held back: something is missing
        focus(page, 'input[name="aspect:helpful"]', at=count % 3)
        page.keyboard.press("Space")
        focus(page, 'input[name="aspect:correct"]')
        page.keyboard.press("ArrowRight")  # to the second, a tie
        focus(page, 'input[name="rating:left:overall"]')
        page.keyboard.press("ArrowRight")
        focus(page, 'input[name="rating:right:overall"]')
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        judged(page, count)
    for count, judgment in enumerate(said(), start=1):
        a, b = (3, 2) if judgment.swapped else (2, 3)
        assert judgment.details["ratings"] == {"a": {"overall": a}, "b": {"overall": b}}
        sides = ["b", "tie", "a"] if judgment.swapped else ["a", "tie", "b"]
        assert judgment.details["aspects"] == {"helpful": sides[count % 3], "correct": "tie"}
        assert on_screen(judgment) == FOUR[count % 4][1]


def test_reasons_after_some_answers_and_a_required_reason(
    page: Page,  # noqa: F811
    live_server: LiveServer,
) -> None:
    form = {
        "reasons": ["tone", "facts"],
        "rationale": "required",
        "rationale_min": 5,
        "known_model": True,
        "conditions": [{"show": "reasons", "when": {"answer": ["tie"]}}],
    }
    opened(page, live_server, form=form)
    for count in range(1, JUDGMENTS + 1):
        key = FOUR[count % 4][0]
        page.keyboard.press(key)
        assert page.locator("[data-question=reasons]").is_visible() == (key == "=")
        page.keyboard.press("Enter")  # held back: a reason is required
        if key == "=":
            focus(page, "input[name=reasons]", at=1)
            page.keyboard.press("Space")
        focus(page, "input[name=known_model]")
        page.keyboard.press("Space")
        focus(page, "textarea[name=rationale]")
        page.keyboard.type("because 1 = 2")
        page.keyboard.press("Control+Enter")
        judged(page, count)
    for count, judgment in enumerate(said(), start=1):
        assert on_screen(judgment) == FOUR[count % 4][1]
        assert judgment.rationale == "because 1 = 2"
        assert judgment.details["known_model"] is True
        assert judgment.details.get("reasons") == (["facts"] if judgment.answer == "tie" else None)


def test_a_rewrite_and_marks(page: Page, live_server: LiveServer) -> None:  # noqa: F811
    form = {
        "rewrite": "required",
        "spans": ["error", "unsafe"],
        "conditions": [{"show": "rewrite", "when": {"answer": ["left", "right"]}}],
    }
    opened(page, live_server, form=form)
    for count in range(1, JUDGMENTS + 1):
        page.keyboard.press("12"[count % 2])
        area = page.locator("textarea[name=rewrite]")
        area.focus()
        page.keyboard.press("Control+End")
        page.keyboard.type(" Hang it up.")
        assert page.locator(".diff ins").last.text_content() == "up."
        if count % 3 == 0:  # the second kind of mark
            focus(page, "input[name=span-category]")
            page.keyboard.press("ArrowRight")
        focus(page, ".markable[data-side=left]")
        for _ in range(2):
            page.keyboard.press("ArrowRight")
        for _ in range(3):
            page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Space")
        assert page.locator(".marks li").count() == 1
        area.focus()
        page.keyboard.press("Control+Enter")
        judged(page, count)
    for count, judgment in enumerate(said(), start=1):
        a, b = judgment.comparison.pair
        text = {"a": a.text, "b": b.text}
        side = "a" if judgment.answer == "a" else "b"
        rewrite = judgment.details["rewrite"]
        assert (rewrite["of"], rewrite["text"]) == (side, f"{text[side]} Hang it up.")
        (span,) = judgment.details["spans"]
        assert span["on"] == ("b" if judgment.swapped else "a")
        assert span["category"] == ("unsafe" if count % 3 == 0 else "error")
        assert text[span["on"]][span["start"] : span["end"]] == "Blot it"


def test_labels_by_digit_and_letter(page: Page, live_server: LiveServer) -> None:  # noqa: F811
    labels = labels_from_text("ham: somebody wrote it\nspam: advertising\nunsure [x]")
    opened(page, live_server, kind="labels", labels=labels)
    for count in range(1, JUDGMENTS + 1):
        page.keyboard.press("12x"[count % 3])
        page.keyboard.press("Enter")
        judged(page, count)
    names = ["ham", "spam", "unsure"]
    assert [each.label for each in said()] == [names[n % 3] for n in range(1, JUDGMENTS + 1)]


def test_an_order_by_digits_and_arrows(page: Page, live_server: LiveServer, tmp_path: Path) -> None:  # noqa: F811
    """Four to nine responses; every third time the last two tie, every fifth one is left out."""
    project = opened(page, live_server, kind="rankings")
    path = tmp_path / "rows.jsonl"
    groups = [TEXTS[: 4 + n % 6] for n in range(JUDGMENTS)]
    rows = [{"prompt": f"Question {n}?", "responses": group} for n, group in enumerate(groups)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    import_rankings(project=project, path=path)
    page.goto(f"{live_server.url}/judge/asked/")
    judged(page, 0)
    expected = []
    for count in range(1, JUDGMENTS + 1):
        shown = page.locator("[data-ranking] .answer .text").all_inner_texts()
        shown = [text.strip() for text in shown]
        order = [[text] for text in TEXTS[: len(shown)]]
        page.keyboard.press("ArrowRight")  # to the first response
        for text in shown:
            page.keyboard.press(str(TEXTS.index(text) + 1))
        if count % 3 == 0:  # the chip of the last place moves up: a tie
            letter = "ABCDEFGHI"[shown.index(TEXTS[len(shown) - 1])]
            page.locator(".order .chip", has_text=letter).focus()
            page.keyboard.press("ArrowLeft")
            order[-2:] = [sorted(order[-2] + order[-1])]
            page.locator("#judge").focus()
        if count % 5 == 0:  # the best one after all is not placed
            page.locator("[data-ranking] .answer").nth(shown.index("best")).focus()
            page.keyboard.press("0")
            order = order[1:]
        page.keyboard.press("Enter")
        judged(page, count)
        expected.append(order)
    found = []
    for judgment in said():
        stored = {row.position: row.response.text for row in judgment.comparison.candidates.all()}
        found.append([sorted(stored[p] for p in tied) for tied in judgment.details["ranking"]])
    assert found == expected
    placed = [sum(map(len, order)) for order in expected]
    pairs = Comparison.objects.filter(group__isnull=False, judgments__isnull=False)
    assert pairs.count() == sum(n * (n - 1) // 2 for n in placed)
    page.set_viewport_size({"width": 390, "height": 844})
    page.keyboard.press("u")
    judged(page, JUDGMENTS - 1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_an_answer_is_revised_and_the_first_one_stays(page: Page, live_server: LiveServer) -> None:  # noqa: F811
    opened(page, live_server)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    judged(page, 1)
    first = Judgment.objects.get()
    page.goto(f"{live_server.url}/my-work/")
    page.get_by_role("link", name="Revise").press("Enter")
    left = page.get_by_role("radio", name="A is better")
    expect(left).to_be_checked()
    left.focus()
    page.keyboard.press("ArrowRight")  # to the one beside it
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # opens "Why?"
    page.keyboard.press("Tab")
    page.keyboard.type("on second thought")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("Revised. Your first answer stays in the history.").wait_for()
    second = Judgment.objects.current().get()
    assert (second.supersedes, second.rationale) == (first, "on second thought")
    assert on_screen(second) != "left"
    assert Judgment.objects.count() == 2
