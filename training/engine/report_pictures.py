"""Figures of a report as inline SVG: no scripts, readable in black and white, text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

SIZE, EDGE = 300, 36
#: Characters of a name that fit above its line.
LONGEST_NAME = 44


def reliability_curve(bins: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy over confidence, a dot a bin whose area grows with its rows; dashed: calibrated."""
    known = [each for each in bins if each["rows"]]
    most = max((each["rows"] for each in known), default=1)

    def place(share: float) -> float:
        return EDGE + share * (SIZE - 2 * EDGE)

    dots = "".join(
        f'<circle cx="{place(b["confidence"]):.1f}" cy="{SIZE - place(b["accuracy"]):.1f}" '
        f'r="{3 + 6 * (b["rows"] / most) ** 0.5:.1f}"/>'
        for b in known
    )
    low, high = EDGE, SIZE - EDGE
    return (
        f'<svg viewBox="0 0 {SIZE} {SIZE}" role="img" aria-label="Accuracy over confidence">'
        f'<path class="axis" d="M{low} {low}V{high}H{high}"/>'
        f'<path class="ideal" d="M{low} {high}L{high} {low}"/>{dots}'
        f'<text x="{low}" y="{SIZE - 18}">0</text><text x="{high}" y="{SIZE - 18}">1</text>'
        f'<text x="{SIZE / 2}" y="{SIZE - 4}">confidence</text>'
        f'<text x="{low - 12}" y="{low + 4}">1</text>'
        f'<text x="{low}" y="{low - 10}">accuracy</text></svg>'
    )


def bars(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Shares from 0 to 1 as dots with the line of their interval; half is marked."""
    left, right, line = 10, 330, 40
    height = line * len(figures) + 24

    def place(share: float) -> float:
        return left + share * (right - left)

    parts = []
    for number, (name, figure) in enumerate(figures.items()):
        y = line * number + 28
        low, high = (figure["value"] if figure[e] is None else figure[e] for e in ("low", "high"))
        short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
        parts.append(
            f'<text class="name" x="{left}" y="{y - 12}">{escape(short)}</text>'
            f'<path class="axis" d="M{place(low):.1f} {y}H{place(high):.1f}"/>'
            f'<circle cx="{place(figure["value"]):.1f}" cy="{y}" r="5"/>'
        )
    return (
        f'<svg viewBox="0 0 340 {height}" role="img" aria-label="Shares with 95 % intervals">'
        f'<path class="ideal" d="M{place(0.5)} 0V{height - 20}"/>{"".join(parts)}'
        f'<text x="{left}" y="{height - 6}">0</text>'
        f'<text x="{place(0.5)}" y="{height - 6}">0.5</text>'
        f'<text x="{right}" y="{height - 6}">1</text></svg>'
    )


def frontier(points: Sequence[Mapping[str, Any]]) -> str:
    """Mean reward over KL, a dot a step; filled where no other step is better at its KL."""
    kls, rewards = [each["kl"] for each in points], [each["reward"] for each in points]
    low, high = EDGE, SIZE - EDGE

    def place(value: float, values: Sequence[float]) -> float:
        least, most = min(values), max(values)
        return low + ((value - least) / (most - least) if most > least else 0.5) * (high - low)

    dots = "".join(
        f'<circle class="{"best" if each["best"] else "other"}" cx="{place(each["kl"], kls):.1f}" '
        f'cy="{SIZE - place(each["reward"], rewards):.1f}" r="4"/>'
        for each in points
    )
    return (
        f'<svg viewBox="0 0 {SIZE} {SIZE}" role="img" aria-label="Mean reward over KL by step">'
        f'<path class="axis" d="M{low} {low}V{high}H{high}"/>{dots}'
        f'<text x="{low}" y="{SIZE - 18}">{min(kls):.3g}</text>'
        f'<text x="{high}" y="{SIZE - 18}">{max(kls):.3g}</text>'
        f'<text x="{SIZE / 2}" y="{SIZE - 4}">KL (nats)</text>'
        f'<text class="name" x="{low + 6}" y="{low + 4}">{max(rewards):.3g}</text>'
        f'<text class="name" x="{low + 6}" y="{high - 4}">{min(rewards):.3g}</text>'
        f'<text x="{low}" y="{low - 10}">reward</text></svg>'
    )
