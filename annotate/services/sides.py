"""Which response is shown on the left: random, stored, and balanced for every person.

Sides come in shuffled blocks (permuted-block randomisation, as in clinical trials), each half
swapped and half not. What is left of a block is stored with the assignment that drew from it.
"""

from __future__ import annotations

import secrets

SWAPPED, STRAIGHT = "s", "n"
BLOCK = 4 * (SWAPPED + STRAIGHT)


def draw_side(ahead: str) -> tuple[bool, str]:
    """(whether to swap, what is left of the block), given what was left before."""
    block = ahead or shuffled()
    return block[0] == SWAPPED, block[1:]


def shuffled() -> str:
    sides = list(BLOCK)
    secrets.SystemRandom().shuffle(sides)
    return "".join(sides)
