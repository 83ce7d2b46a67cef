"""Formulas in answers: drawn where they are formulas, and never a way in."""

from __future__ import annotations

import pytest

from annotate.rendering import render


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        (r"so \(x^2\) grows", "<msup><mi>x</mi><mn>2</mn></msup>"),
        ("so $x_i$ grows", "<msub><mi>x</mi><mi>i</mi></msub>"),
        ("$$\n\\frac{a}{b}\n$$", '<math display="block"><mrow><mfrac>'),
        ("\\[\n\\sqrt{y}\n\\]", '<math display="block"><mrow><msqrt>'),
        (r"over \(\mathbb{R}\)", "ℝ"),
    ],
)
def test_a_formula_becomes_mathml(text: str, drawn: str) -> None:
    assert drawn in render(text)


@pytest.mark.parametrize("text", ["it costs $5, then $6", r"an open \( b", r"\$x\$", "`$x$`"])
def test_what_is_no_formula_stays_text(text: str) -> None:
    assert "<math" not in render(text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (r"$\left($", r"<code>$\left($</code>"),
        (r"$\text{a<b}$", r"<code>$\text{a&lt;b}$</code>"),
        ("$$\n\\left(\n$$", "$$\n\\left(\n$$</pre>"),
        ("$" + "x" * 2_001 + "$", "x" * 2_001),
        ("$$\nx\n$$ (7)", "<p>(7)</p>"),
    ],
)
def test_what_cannot_be_drawn_is_shown_as_it_was_written(text: str, kept: str) -> None:
    assert kept in render(text)


@pytest.mark.parametrize(
    "text",
    [
        "<math><mtext><script>alert(1)</script></mtext></math>",
        r"$\href{javascript:alert(1)}{x}$",
        r"$\style{position:fixed}{x}$",
        r"$\class{bar}{x}$",
        r"$\text{<img src=x onerror=alert(1)>}$",
    ],
)
def test_a_formula_brings_nothing_that_an_answer_may_not(text: str) -> None:
    html = render(text)
    for forbidden in ("<script", "<img", "href=", "style=", "class="):
        assert forbidden not in html
