"""Pictures drawn on the server as SVG: no script, no inline style, readable in black and white.

Each has its numbers in words or in a table beside it, so it is an illustration to a screen reader.
Colours come from classes (static/css/pages.css), which know light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

register = template.Library()
#: For a picture whose number stands beside it.
HIDDEN = SafeString('aria-hidden="true"')


def svg(name: str, width: int, height: int, parts: Iterable[SafeString], label: str) -> SafeString:
    return format_html(
        '<svg class="picture {}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>',
        name,
        width,
        height,
        label,
        format_html_join("", "{}", ((part,) for part in parts)),
    )


def at(number: float) -> str:
    """A coordinate: a tenth of a unit is finer than any screen."""
    return f"{number:.1f}"


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> SafeString:
    ends = (at(number) for number in (x1, y1, x2, y2))
    return format_html('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>', kind, *ends)


def rect(kind: str, x: float, y: float, width: float, height: float, **extra: Any) -> SafeString:
    more = format_html_join("", ' {}="{}"', ((k.replace("_", "-"), v) for k, v in extra.items()))
    return format_html(
        '<rect class="{}" x="{}" y="{}" width="{}" height="{}"{}/>',
        kind, at(x), at(y), at(max(width, 0.0)), at(max(height, 0.0)), more,
    )  # fmt: skip


def words(x: float, y: float, text: object, anchor: str = "middle", kind: str = "") -> SafeString:
    return format_html(
        '<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>',
        at(x),
        at(y),
        anchor,
        kind,
        text,
    )


def path(kind: str, points: Sequence[tuple[float, float]]) -> SafeString:
    return format_html(
        '<path class="{}" d="M{}"/>', kind, " L".join(f"{at(x)} {at(y)}" for x, y in points)
    )


@register.simple_tag
def interval_picture(
    value: float,
    low: float | None,
    high: float | None,
    floor: float,
    ceiling: float,
    marks: str = "",
    label: str = "",
) -> SafeString:
    """An estimate as a dot on its interval, on a scale with marks such as "0.667 0.8"."""
    width, left, right, y = 320, 14, 306, 16
    floor = min(floor, value, low if low is not None else value)

    def place(number: float) -> float:
        return left + (number - floor) / ((ceiling - floor) or 1) * (right - left)

    ticks = sorted({floor, ceiling, *(float(mark) for mark in marks.split())})
    parts = [line("axis", left, y, right, y)]
    for tick in ticks:
        parts.append(line("grid", place(tick), y - 9, place(tick), y + 9))
        parts.append(words(place(tick), y + 25, f"{tick:.2g}"))
    if low is not None and high is not None:
        parts.append(rect("band", place(low), y - 6, place(high) - place(low), 12, rx=3))
    parts.append(format_html('<circle class="mark" cx="{}" cy="{}" r="5"/>', at(place(value)), y))
    return svg("interval", width, 46, parts, label)


@register.simple_tag
def bar_picture(value: float | None, largest: float | None, label: str = "") -> SafeString:
    """One horizontal bar of a table's column, as wide as its share of the largest.

    Without a label its number stands beside it, and a screen reader passes over it.
    """
    share = 100.0 * (value or 0) / largest if largest else 0.0
    told = format_html('role="img" aria-label="{}"', label) if label else HIDDEN
    return format_html(
        '<svg class="picture bar-of" {}>'
        '<rect class="track" width="100%" height="100%" rx="3"/>'
        '<rect class="fill" width="{}%" height="100%" rx="3"/></svg>',
        told,
        at(share),
    )


@register.simple_tag
def heat_map(names: Sequence[str], cells: dict[tuple[str, str], tuple[float, int]]) -> SafeString:
    """Annotators against annotators: the fuller the square, the more often they agree."""
    cell, left, top = 46, 132, 26
    size = cell * len(names)
    parts = []
    for row, first in enumerate(names):
        parts.append(
            words(
                left - 8, top + row * cell + cell / 2 + 4, f"{shortened(first)}  {row + 1}", "end"
            )
        )
        parts.append(words(left + row * cell + cell / 2, top - 8, row + 1))
        for column, second in enumerate(names):
            x, y = left + column * cell, top + row * cell
            if row == column:
                parts.append(rect("none", x + 1, y + 1, cell - 2, cell - 2))
                continue
            found = cells.get((first, second)) or cells.get((second, first))
            if found is None:
                parts.append(rect("missing", x + 1, y + 1, cell - 2, cell - 2))
                continue
            share, n = found
            title = f"{first} and {second}: same answer {share:.0%} of {n}"
            parts.append(
                format_html(
                    "<g><title>{}</title>{}{}</g>",
                    title,
                    rect("cell", x + 1, y + 1, cell - 2, cell - 2, fill_opacity=f"{share:.2f}"),
                    words(
                        x + cell / 2,
                        y + cell / 2 + 4,
                        f"{share * 100:.0f}",
                        kind=("on" if share > 0.55 else ""),
                    ),
                )
            )
    label = "How often every two annotators gave the same answer, in percent"
    return svg("heat", left + size + 4, top + size + 4, parts, label)


def shortened(name: str) -> str:
    """Short enough for the margin; both ends stay, since names often differ at the end."""
    return name if len(name) <= 15 else f"{name[:7]}…{name[-6:]}"


@register.simple_tag
def histogram(edges: Sequence[int], first: Sequence[int], second: Sequence[int]) -> SafeString:
    """Two distributions over the same bins: the first filled, the second as an outline."""
    width, height, left, bottom, top = 640, 200, 46, 26, 14
    tallest = max([*first, *second, 1])
    base = height - bottom
    step = (width - left - 8) / max(len(first), 1)

    def up(count: int) -> float:
        return base - count / tallest * (base - top)

    parts = [
        line("grid", left, up(tallest), width - 8, up(tallest)),
        words(left - 5, up(tallest) + 4, tallest, "end"),
        words(left - 5, base, 0, "end"),
    ]
    outline: list[tuple[float, float]] = [(left, base)]
    for index, (a, b) in enumerate(zip(first, second, strict=True)):
        x = left + index * step
        parts.append(rect("fill", x + 1, up(a), step - 2, base - up(a)))
        outline += [(x, up(b)), (x + step, up(b))]
        if index % 2 == 0:
            parts.append(words(x, height - 7, edges[index], "start"))
    outline.append((width - 8, base))
    parts += [path("second", outline), line("axis", left, base, width - 8, base)]
    return svg(
        "histogram", width, height, parts, "Response lengths: chosen filled, rejected outlined"
    )


@register.simple_tag
def forecast_picture(
    points: Sequence[tuple[datetime, int]],
    total: int,
    done_by: datetime | None,
    low: datetime | None,
    high: datetime | None,
) -> SafeString | str:
    """Judgments over time as a line, the goal above it, and the way there at this pace."""
    if len(points) < 2:
        return ""
    width, height, left, bottom, top = 640, 210, 58, 26, 14
    start, now = points[0][0], points[-1][0]
    # A far forecast would squeeze what was measured into a corner: the picture ends before it.
    end = min(high or done_by or now, now + 3 * max(now - start, timedelta(hours=1)))
    span = max((end - start).total_seconds(), 1.0)
    base = height - bottom
    ceiling = max(total, points[-1][1], 1)

    def place(moment: datetime, count: float) -> tuple[float, float]:
        x = left + (moment - start).total_seconds() / span * (width - left - 12)
        return min(x, width - 12.0), base - count / ceiling * (base - top)

    def ahead(moment: datetime) -> tuple[float, float]:
        """The goal at `moment`, or how far the way there is when the picture ends."""
        if moment <= end:
            return place(moment, total)
        share = (end - now) / (moment - now)
        return place(end, points[-1][1] + share * (total - points[-1][1]))

    goal = place(start, total)[1]
    parts = [
        line("grid", left, goal, width - 12, goal),
        words(left - 6, goal + 4, total, "end"),
        words(left - 6, base, 0, "end"),
        line("axis", left, base, width - 12, base),
    ]
    placed = [place(moment, count) for moment, count in points]
    parts.append(path("area", [(left, base), *placed, (placed[-1][0], base)]))
    parts.append(path("curve", placed))
    if done_by is not None and done_by > now:
        if low is not None and high is not None:
            tip = [ahead(low), ahead(high)]
            parts.append(path("cone", [placed[-1], *tip, placed[-1]]))
        parts.append(path("ahead", [placed[-1], ahead(done_by)]))
    parts.append(words(left, height - 6, f"{start:%d %b}", "start"))
    x_now = placed[-1][0]
    if x_now < width - 90:
        parts.append(line("grid", x_now, top, x_now, base))
        parts.append(words(x_now, height - 6, "now"))
        parts.append(words(width - 12, height - 6, f"{end:%d %b}", "end"))
    else:
        parts.append(words(width - 12, height - 6, "now", "end"))
    return svg("forecast", width, height, parts, "Judgments over time, and at this pace")
