"""LaTeX in answers becomes MathML on the server; browsers draw it without a script or a font.

What a model writes as MathML stays text (the Markdown parser escapes it): only what is converted
here reaches the page, through the same allow-list as everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.texmath import texmath_plugin

#: Presentation elements that hold no address, script or style of their own.
TAGS = {
    "math", "menclose", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mpadded",
    "mphantom", "mprescripts", "mroot", "mrow", "mspace", "msqrt", "mstyle", "msub", "msubsup",
    "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover", "none",
}  # fmt: skip
ATTRIBUTES = {
    "math": {"display"},
    "mfrac": {"linethickness"},
    "mi": {"mathvariant"},
    "mo": {"fence", "form", "maxsize", "minsize", "movablelimits", "separator", "stretchy"},
    "mspace": {"width"},
    "mstyle": {"displaystyle", "scriptlevel"},
    "mtd": {"columnalign"},
}
#: A longer formula is shown as it was written.
MAX_FORMULA = 2_000


def add_formulas(parser: MarkdownIt) -> None:
    r"""Teach a parser `$…$`, `$$…$$`, `\(…\)` and `\[…\]`; a price in dollars stays one."""
    dollarmath_plugin(parser, allow_digits=False, allow_space=False, double_inline=True)
    texmath_plugin(parser, delimiters="brackets")
    parser.add_render_rule("math_inline", within_line)
    for kind in ("math_inline_double", "math_block", "math_block_label", "math_block_eqno"):
        parser.add_render_rule(kind, apart)


def within_line(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    return formula(tokens[index], display="inline")


def apart(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    token = tokens[index]
    numbered = token.type in ("math_block_label", "math_block_eqno")
    number = f"<p>({escapeHtml(token.info)})</p>" if numbered else ""
    return formula(token, display="block") + number


def formula(token: Token, *, display: str) -> str:
    """MathML, or the source as code where it is none, is too long, or would lose a character."""
    source = token.content.strip()
    # The converter copies what stands in \text{…} unescaped.
    if len(source) <= MAX_FORMULA and not ("\\text" in source and set("<&") & set(source)):
        # Its parser fails in many ways, and all mean that this is no formula.
        with suppress(Exception):
            return str(convert(source, display=display))
    tag = "pre" if token.block else "code"
    return f"<{tag}>{escapeHtml(token.markup + token.content + closing(token.markup))}</{tag}>"


def closing(markup: str) -> str:
    return {"\\(": "\\)", "\\[": "\\]"}.get(markup, markup)
