"""Numbers as people read them, and states with an icon and a word."""

from __future__ import annotations

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

GOOD, BAD = {"promoted", "succeeded"}, {"failed", "cancelled", "rejected", "lost"}
WAITING = {"draft", "queued", "awaiting verdict"}


@register.filter
def figure(value: float | int | None) -> str:
    """At most three significant decimals; a dash for what was not measured."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return str(value)
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


@register.filter
def percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.0f} %"


@register.filter
def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
    )


@register.filter
def badge(state: str) -> SafeString:
    """A state's own words in a coloured outline, with a sign for those who see no colour."""
    word = str(state).lower()
    if word in GOOD:
        return format_html('<span class="badge good">✓ {}</span>', state)
    if word in BAD:
        return format_html('<span class="badge bad">✕ {}</span>', state)
    sign = "○" if word in WAITING else "●"
    return format_html('<span class="badge busy">{} {}</span>', sign, state)
