"""Curves as server-drawn SVG: they need no script and print in black and white."""

from __future__ import annotations

from collections.abc import Sequence

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

register = template.Library()

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 320, 150, 46, 22, 8


@register.filter
def curve(points: Sequence[tuple[int, float]]) -> SafeString:
    """A line through (step, value) points with the lowest and highest value on the axis."""
    steps = [step for step, _ in points]
    values = [value for _, value in points]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    reach = (steps[-1] - steps[0]) or 1
    placed = [
        (
            LEFT + (step - steps[0]) / reach * (WIDTH - LEFT - 8),
            TOP + (1 - (value - low) / span) * (HEIGHT - BOTTOM - TOP),
        )
        for step, value in points
    ]
    path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
    base = HEIGHT - BOTTOM
    frame = format_html('<line x1="{}" y1="{}" x2="{}" y2="{}"/>', LEFT, base, WIDTH - 8, base)
    labels = format_html_join(
        "",
        '<text x="{}" y="{}" text-anchor="{}">{}</text>',
        [
            (LEFT - 5, TOP + 8, "end", f"{high:.3g}"),
            (LEFT - 5, base, "end", f"{low:.3g}"),
            (LEFT, HEIGHT - 6, "start", f"step {steps[0]}"),
            (WIDTH - 8, HEIGHT - 6, "end", steps[-1]),
        ],
    )
    return format_html(
        '<svg class="curve" viewBox="0 0 {} {}" aria-hidden="true">{}{}<path d="{}"/></svg>',
        WIDTH,
        HEIGHT,
        frame,
        labels,
        path,
    )
