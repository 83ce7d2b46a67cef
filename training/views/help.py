"""The documentation that comes with the platform, read inside it: `/help/…` mirrors `docs/…`."""

from __future__ import annotations

import posixpath
import re
from functools import cache
from typing import NamedTuple
from urllib.parse import urlsplit

from django.conf import settings
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.utils.safestring import SafeString
from django.views.decorators.http import require_safe
from markdown_it import MarkdownIt

from annotate.rendering import cleaned
from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import Role

#: Folders of `docs/` in the order of the contents, and what they are called.
SECTIONS = {
    "explanations": "Understand",
    "how-to": "Do",
    "methods": "Methods",
    "reference": "Look up",
}
#: Hard-wrapped lines are one paragraph here, other than in a model's answer.
_markdown = MarkdownIt("js-default", {"linkify": False}).disable("image")


class Section(NamedTuple):
    title: str
    #: (address below /help/, title) of each page.
    pages: list[tuple[str, str]]


@cache
def contents() -> dict[str, str]:
    """{path below docs/: its first heading} of every page that is served."""
    docs = settings.BASE_DIR / "docs"
    return {
        page.relative_to(docs).as_posix(): heading(page.read_text(encoding="utf-8"))
        for folder in SECTIONS
        for page in sorted((docs / folder).glob("*.md"))
    }


def heading(text: str) -> str:
    found = re.match(r"# (.+)", text)
    return found[1].replace("`", "") if found else "Untitled"


@cache
def page_html(path: str) -> SafeString:
    """A page as HTML; links to what is not served here keep their words alone."""
    tokens = _markdown.parse((settings.BASE_DIR / "docs" / path).read_text(encoding="utf-8"))
    for token in (child for block in tokens for child in block.children or ()):
        if token.type == "link_open" and not reachable(str(token.attrs["href"]), path):
            del token.attrs["href"]
    return cleaned(_markdown.renderer.render(tokens, _markdown.options, {}))


def reachable(href: str, path: str) -> bool:
    parts = urlsplit(href)
    if parts.scheme or not parts.path:
        return True
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), parts.path)) in contents()


@require_safe
@requires(Role.ANNOTATOR)
def help_contents(request: MemberRequest) -> HttpResponse:
    sections = [
        Section(title, [item for item in contents().items() if item[0].startswith(f"{folder}/")])
        for folder, title in SECTIONS.items()
    ]
    return render(request, "training/help_contents.html", {"sections": sections})


@require_safe
@requires(Role.ANNOTATOR)
def help_page(request: MemberRequest, path: str) -> HttpResponse:
    if path not in contents():
        if f"{path.rstrip('/')}.md" in contents():
            return redirect("help_page", path=f"{path.rstrip('/')}.md")
        raise Http404(f"there is no page {path!r}; see the contents")
    context = {"title": contents()[path], "body": page_html(path)}
    return render(request, "training/help_page.html", context)
