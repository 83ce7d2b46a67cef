"""Curves as server-drawn SVG: they need no script and print in black and white."""

from __future__ import annotations

from collections.abc import Sequence

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from training.engine.frontier import Point

register = template.Library()

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 320, 150, 48, 10, 22, 10


@register.filter
def curve(points: Sequence[tuple[int, float]], limit: float | None = None) -> SafeString:
    """A line through (step, value) points, its lowest and highest value and its end marked.

    limit: drawn dashed across, and within the picture.
    """
    steps = [step for step, _ in points]
    values = [value for _, value in points]
    held = [*values, limit] if limit is not None else values
    low, high = min(held), max(held)
    span = high - low
    reach = (steps[-1] - steps[0]) or 1
    base = HEIGHT - BOTTOM
    placed = [
        (
            LEFT + (step - steps[0]) / reach * (WIDTH - LEFT - RIGHT),
            TOP + (1 - ((value - low) / span if span else 0.5)) * (base - TOP),
        )
        for step, value in points
    ]
    end = tuple(f"{number:.1f}" for number in placed[-1])
    path = " L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
    across = [("zero", 0.0)] if low < 0 < high else []
    across += [("limit", limit)] if limit is not None else []
    marked = format_html_join(
        "",
        '<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>',
        [
            (kind, LEFT, y, WIDTH - RIGHT, y)
            for kind, value in across
            for y in [f"{TOP + (1 - (value - low) / (span or 1)) * (base - TOP):.1f}"]
        ],
    )
    rules = format_html_join(
        "",
        '<line x1="{}" y1="{}" x2="{}" y2="{}"/>',
        [(LEFT, y, WIDTH - RIGHT, y) for y in (TOP, (TOP + base) // 2, base)],
    )
    labels = format_html_join(
        "",
        '<text x="{}" y="{}" text-anchor="{}">{}</text>',
        [
            (LEFT - 6, TOP + 4, "end", short(high)),
            (LEFT - 6, base + 3, "end", short(low)),
            (LEFT, HEIGHT - 6, "start", f"step {steps[0]}"),
            (WIDTH - RIGHT, HEIGHT - 6, "end", steps[-1]),
        ],
    )
    return format_html(
        '<svg class="curve" viewBox="0 0 {} {}" aria-hidden="true">{}{}{}'
        '<path class="under" d="M{} {} L{} L{} {} Z"/><path d="M{}"/>'
        '<circle cx="{}" cy="{}" r="3.5"/></svg>',
        WIDTH, HEIGHT, rules, marked, labels,
        LEFT, base, path, end[0], base, path, *end,
    )  # fmt: skip


def short(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 0.01 or value == 0 else f"{value:.1g}"


@register.filter
def reward_over_kl(points: Sequence[Point]) -> SafeString:
    """A dot a step, mean reward over KL; filled where no other step is better at its KL."""
    kls, rewards = [point.kl for point in points], [point.reward for point in points]
    base = HEIGHT - BOTTOM

    def share(value: float, values: Sequence[float]) -> float:
        least, most = min(values), max(values)
        return (value - least) / (most - least) if most > least else 0.5

    dots = format_html_join(
        "",
        '<circle{} cx="{}" cy="{}" r="3.5"/>',
        [
            (
                "" if point.best else format_html(' class="{}"', "other"),
                f"{LEFT + share(point.kl, kls) * (WIDTH - LEFT - RIGHT):.1f}",
                f"{TOP + (1 - share(point.reward, rewards)) * (base - TOP):.1f}",
            )
            for point in points
        ],
    )
    labels = format_html_join(
        "",
        '<text x="{}" y="{}" text-anchor="{}">{}</text>',
        [
            (LEFT - 6, TOP + 4, "end", short(max(rewards))),
            (LEFT - 6, base + 3, "end", short(min(rewards))),
            (LEFT, HEIGHT - 6, "start", f"KL {short(min(kls))}"),
            (WIDTH - RIGHT, HEIGHT - 6, "end", short(max(kls))),
        ],
    )
    return format_html(
        '<svg class="curve" viewBox="0 0 {} {}" role="img" aria-label="Reward over KL">'
        '<line x1="{}" y1="{}" x2="{}" y2="{}"/>{}{}</svg>',
        WIDTH, HEIGHT, LEFT, base, WIDTH - RIGHT, base, labels, dots,
    )  # fmt: skip
