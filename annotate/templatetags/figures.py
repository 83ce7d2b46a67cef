"""Numbers and times as people read them, and states with an icon and a word."""

from __future__ import annotations

import json
import math
from datetime import datetime

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil

register = template.Library()

GOOD, BAD = {"promoted", "succeeded", "open", "accepted"}, {"failed", "rejected", "lost"}
STOPPED = {"cancelled", "closed", "paused", "expired", "interrupted"}
WAITING = {"draft", "queued", "awaiting verdict", "candidate", "to come"}


@register.filter
def figure(value: float | int | None) -> str:
    """At most three decimals, none from a thousand on; a dash for what was not measured."""
    if value is None:
        return "–"
    if isinstance(value, int) or 1000 <= abs(value) < math.inf:
        value = round(value)
        return f"{value:,}".replace(",", "\u202f")
    if value != 0 and abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


@register.filter
def percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.0f} %"


@register.filter
def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
    )


@register.filter
def size(count: int | None) -> str:
    """Bytes in the unit people would use."""
    if count is None:
        return "–"
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """A relative time in one unit, with the exact one on hover."""
    if moment is None:
        return "–"
    now = timezone.now()
    if abs((now - moment).total_seconds()) < 60:
        words = "just now" if moment <= now else "in a moment"
    elif moment <= now:
        words = f"{timesince(moment, now, depth=1)} ago"
    else:
        words = f"in {timeuntil(moment, now, depth=1)}"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        moment.isoformat(timespec="seconds"),
        f"{moment:%Y-%m-%d %H:%M:%S} UTC",
        words,
    )


@register.filter
def setting(value: object) -> str:
    """A setting's value as JSON spells it, which is how it is asked for."""
    return json.dumps(value, ensure_ascii=False)


@register.filter
def words(name: str) -> str:
    """A stage or reason as it is read aloud: both_bad → both bad."""
    return str(name).replace("_", " ")


@register.filter
def badge(state: str) -> SafeString:
    """A state's own words in a coloured outline, with a sign for those who see no colour."""
    word = str(state).lower()
    if word in GOOD:
        return format_html('<span class="badge good">✓ {}</span>', state)
    if word in BAD:
        return format_html('<span class="badge bad">✕ {}</span>', state)
    if word in STOPPED:
        return format_html('<span class="badge">■ {}</span>', state)
    sign, tone = ("○", "") if word in WAITING else ("●", " busy")
    return format_html('<span class="badge{}">{} {}</span>', tone, sign, state)
