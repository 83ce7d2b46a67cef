"""The one way in which model text becomes HTML.

markdown-it-py's `js-default` preset escapes raw HTML; nh3 then keeps an allow-list without images,
ids, classes or styles, so that an answer can neither call home nor dress up as the page.
"""

from __future__ import annotations

import hashlib

import nh3
from django.core.cache import caches
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

from annotate import mathematics

TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li",
    "ol", "p", "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
} | mathematics.TAGS  # fmt: skip
ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}, **mathematics.ATTRIBUTES}
SCHEMES = {"http", "https", "mailto"}
#: Longer answers, and those that are mostly brackets, are shown as plain text. The parser takes
#: quadratic time for some texts: 40,000 characters of "![" took 2 s, 159,000 of stray marks 6 s.
MAX_MARKDOWN, MAX_BRACKETS = 20_000, 2_000

#: Raised with every change of what `render` makes of a text: what was kept before is not used.
VERSION = 1

_markdown = MarkdownIt("js-default", {"linkify": False, "breaks": True}).disable("image")
mathematics.add_formulas(_markdown)


def render(text: str) -> SafeString:
    """Sanitised HTML of Markdown that nobody may trust."""
    if len(text) > MAX_MARKDOWN or text.count("[") > MAX_BRACKETS:
        return cleaned(f"<pre>{nh3.clean_text(text)}</pre>")
    return rendered(text)


def rendered(text: str) -> SafeString:
    """The HTML of a text, kept under its digest and the renderer's version."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    kept = caches["rendered"]
    html = kept.get(f"{VERSION}:{digest}")
    if html is None:
        html = cleaned(_markdown.render(text))
        kept.set(f"{VERSION}:{digest}", html)
    return html


def cleaned(html: str) -> SafeString:
    clean = nh3.clean(
        html,
        tags=TAGS,
        attributes=ATTRIBUTES,
        url_schemes=SCHEMES,
        link_rel="noopener noreferrer nofollow ugc",
    )
    return mark_safe(focusable(clean))  # noqa: S308 - nh3 has just cleaned it


def focusable(html: str) -> str:
    """What may scroll in a box of its own can be reached by keyboard; an empty cell heads nothing.

    Takes nh3's output, in which a `<` is always an element's.
    """
    for tag in ("pre", "table"):
        html = html.replace(f"<{tag}>", f'<{tag} tabindex="0">')
    return html.replace("<th></th>", "<td></td>")
