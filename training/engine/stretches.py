"""Which parts of a long text are looked at. Holds no torch."""

from __future__ import annotations

#: Characters of a text that are looked at: so many stretches of so many, spread evenly.
STRETCHES, STRETCH = 40, 10_000


def stretches(text: str, most: int) -> list[str]:
    """The text, or so many stretches of it, spread evenly."""
    if len(text) <= most * STRETCH:
        return [text]
    step = (len(text) - STRETCH) / max(1, most - 1)
    return [text[round(i * step) : round(i * step) + STRETCH] for i in range(most)]
