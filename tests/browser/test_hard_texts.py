"""Texts that are hard to show: everything of them is on the screen, and nothing leaves its box."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import Assignment
from rlhf_platform.accounts.secrets import make_sign_in_link
from tests.browser.test_judging_by_keyboard import pytestmark, quiet_page  # noqa: F401
from tests.factories import make_comparison, make_project
from tests.people import make_people

NAUGHTY = Path(__file__).parents[1] / "data" / "naughty" / "strings.txt"
#: What Markdown takes for itself, and space, which HTML folds: the rest has to be on the screen.
MARKDOWN = re.compile(r"[\s\\`*_#>\[\]()!~|+.&;:$<-]")
ARABIC = "ثم نفس سقطت وبالتحديد (GPT-4) في 12 دقيقة."
HEBREW = "בראשית ברא אלהים את השמים ואת הארץ"
CODE = "if (a[0] > b) { return a; }"
CJK = "田中さんにあげて下さい。社會科學院語學研究所。찦차를 타고 온 펲시맨과 쑛다리 똠방각하" * 12
WIDE_TABLE = "|" + " column |" * 14 + "\n|" + "---|" * 14 + "\n|" + f" {'x' * 40} |" * 14
LATEX = (
    r"So $x^2 + y_1$ and $$\int_0^\infty e^{-x}\,dx = \frac{1}{2}" + r"+ \frac{1}{2}" * 40 + "$$"
)
MATHML = (
    '<math><mtext><a href="javascript:window.pwned=1">go</a></mtext></math>'
    '<math href="javascript:window.pwned=1"><mi>x</mi></math> $<img src=x onerror="pwned=1">$'
)
PAIRS = {
    "right to left": (f"{ARABIC}\n\n{HEBREW} - English inside\n\n```\n{CODE}\n```", f"{HEBREW}: 1"),
    "no spaces": (CJK, "x" * 3_000),
    "100 kB and nothing": ("Long words and short ones. " * 4_000 + "y" * 500, ""),
    "tables and code": (WIDE_TABLE, "```python\n" + "value = 1  # " + "z" * 400 + "\n```"),
    "formulas": (LATEX, MATHML),
}


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    with quiet_page(monkeypatch) as opened:
        yield opened


def naughty() -> list[str]:
    lines = NAUGHTY.read_text(encoding="utf-8").split("\n")
    return [line for line in lines if line and not line.startswith("# ")]


def judging(page: Page, server: LiveServer, pairs: list[tuple[str, str]]) -> None:
    """Bob before the first of these pairs; each answer is also the question."""
    people = make_people()
    project = make_project(people.workspace)
    for number, (a, b) in enumerate(pairs):
        comparison = make_comparison(project, prompt=a[:5_000] or "Nothing?", a=a, b=b)
        comparison.priority = -number
        comparison.save(update_fields=["priority"])
    page.goto(f"{server.url}/sign-in/{make_sign_in_link(user=people.bob)}/")
    page.get_by_role("button", name="Sign in").press("Enter")
    page.wait_for_url("**/judge/")
    page.goto(f"{server.url}/judge/helpful/")
    page.locator("#judge[data-ready]").wait_for()


def sides(page: Page) -> dict[str, str]:
    """{left, right}: the texts whose assignment is on the screen, as they are stored."""
    pk = page.locator("#answer-form input[name=assignment]").get_attribute("value")
    assignment = Assignment.objects.get(pk=int(str(pk)))
    a, b = assignment.comparison.pair
    left, right = (b, a) if assignment.swapped else (a, b)
    return {"left": left.text, "right": right.text}


def shown(page: Page, side: str) -> str:
    text: str = page.locator(f"#{side} .text").evaluate("(box) => box.textContent")
    return MARKDOWN.sub("", text)


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def next_one(page: Page) -> None:
    on_screen = page.locator("#answer-form input[name=assignment]")
    before = on_screen.get_attribute("value")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(on_screen).not_to_have_value(str(before))


def test_all_of_a_hard_text_is_shown_and_the_page_never_scrolls_sideways(
    page: Page, live_server: LiveServer
) -> None:
    judging(page, live_server, list(PAIRS.values()))
    for what in PAIRS:
        for side, text in sides(page).items():
            if not text:
                expect(page.locator(f"#{side} .text")).to_have_text("(empty response)")
            elif what != "formulas":  # below: it becomes MathML
                assert shown(page, side) == MARKDOWN.sub("", text).removeprefix("python"), what
        # 400 % zoom of a page 1280 pixels wide is a page of 320.
        for width, height in ((1280, 800), (360, 740), (320, 256)):
            page.set_viewport_size({"width": width, "height": height})
            assert fits(page), (what, width)
            if what in ("right to left", "no spaces", "100 kB and nothing"):
                box = page.locator("#left .text")  # wraps, and is not scrolled through sideways
                assert box.evaluate("(e) => e.scrollWidth <= e.clientWidth + 1"), (what, width)
        page.set_viewport_size({"width": 1280, "height": 800})
        if what != list(PAIRS)[-1]:
            next_one(page)
    assert page.evaluate("window.pwned") is None


def test_naughty_strings_are_shown_as_they_are(page: Page, live_server: LiveServer) -> None:
    strings = naughty()
    assert len(strings) > 100
    # Between fences and indents of its own no string can end or begin another's paragraph.
    halves = [
        "\n\n".join(f"~~~~~~~~~~\n{string}\n~~~~~~~~~~" for string in half)
        for half in (strings[::2], strings[1::2])
    ]
    judging(page, live_server, [(halves[0], halves[1]), ("\n\n".join(strings), "plain")])
    for side, text in sides(page).items():
        mine = strings[::2] if text == halves[0] else strings[1::2]
        blocks = page.locator(f"#{side} .text pre").evaluate_all(
            "(all) => all.map((one) => one.textContent)"
        )
        # A browser, like every parser of HTML, reads a carriage return as a line's end.
        assert [block.removesuffix("\n") for block in blocks] == [
            string.replace("\r", "\n") for string in mine
        ]
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 740})
        assert fits(page)
        next_one(page) if width == 1280 else None  # and once more as Markdown
    assert page.evaluate("window.pwned") is None
    assert page.locator("#left script, #right script, #left img, #right [style]").count() == 0


def test_each_paragraph_has_its_own_direction_and_code_is_always_left_to_right(
    page: Page, live_server: LiveServer
) -> None:
    judging(page, live_server, [PAIRS["right to left"]])
    side = next(side for side, text in sides(page).items() if CODE in text)
    box = page.locator(f"#{side} .text")
    # Where the first and the last letter of an element are drawn.
    ends = """(e) => { const walker = document.createTreeWalker(e, NodeFilter.SHOW_TEXT);
      const node = walker.nextNode(); const range = document.createRange();
      const at = (n) => { range.setStart(node, n); range.setEnd(node, n + 1);
        return range.getBoundingClientRect().left; };
      return [at(0), at(10)]; }"""
    for paragraph in (0, 1):
        first, later = box.locator("p").nth(paragraph).evaluate(ends)
        assert first > later
    first, later = box.locator("pre code").evaluate(ends)
    assert first < later
    assert box.locator("pre code").inner_text().strip() == CODE


def test_formulas_come_from_latex_and_never_from_what_a_model_wrote_as_mathml(
    page: Page, live_server: LiveServer
) -> None:
    judging(page, live_server, [PAIRS["formulas"]])
    by_text = {text: side for side, text in sides(page).items()}
    formulas = page.locator(f"#{by_text[LATEX]} math")
    assert formulas.count() == 2
    assert formulas.first.bounding_box() is not None
    theirs = page.locator(f"#{by_text[MATHML]}")
    expect(theirs.locator("a")).to_have_count(0)
    assert '<math><mtext><a href="javascript:' in theirs.inner_text()
    assert page.evaluate("window.pwned") is None


def test_forced_colours_keep_the_choice_and_the_focus_apart(
    monkeypatch: pytest.MonkeyPatch, live_server: LiveServer
) -> None:
    with quiet_page(monkeypatch, forced_colors="active") as page:
        judging(page, live_server, [("one", "two")])
        page.keyboard.press("1")
        page.get_by_role("radio", name="A is better").focus()
        page.keyboard.press("ArrowDown")  # the browser's own keys: tie, chosen and focused
        look = """(label) => { const style = getComputedStyle(label);
          return [style.outlineStyle, style.outlineWidth, style.outlineColor,
                  style.backgroundColor, style.color].join(" "); }"""
        labels = page.locator(".choices label")
        seen = {name: labels.filter(has_text=name).evaluate(look) for name in ("A is", "Tie")}
        page.locator("#judge").focus()
        seen["Tie, not focused"] = labels.filter(has_text="Tie").evaluate(look)
        assert len(set(seen.values())) == 3, seen
        # Every place that Tab reaches shows that it is reached.
        for _ in range(12):
            page.keyboard.press("Tab")
            shown = page.evaluate(
                """() => { const e = document.activeElement;
                  if (e === document.body) return true; // round the end of the page
                  const box = e.closest("label") ?? e;
                  return [e, box].some((one) => getComputedStyle(one).outlineStyle !== "none"); }"""
            )
            assert shown, page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        assert fits(page)


def test_what_is_chosen_can_be_sent_at_four_hundred_per_cent(
    page: Page, live_server: LiveServer
) -> None:
    judging(page, live_server, [("one " * 500, "two")])
    page.set_viewport_size({"width": 320, "height": 256})
    for name in ("A is better", "Both bad"):
        page.get_by_role("radio", name=name).focus()
        expect(page.locator(".choices label").filter(has_text=name)).to_be_in_viewport(ratio=0.9)
    page.get_by_role("button", name="Send").focus()
    expect(page.get_by_role("button", name="Send")).to_be_in_viewport(ratio=0.9)
    assert fits(page)
