"""What people's answers to one comparison say together."""

from __future__ import annotations

from collections import Counter


def believe(counts: Counter[str]) -> tuple[str, float]:
    """(outcome, P(A better)) of one comparison's answers: a, b, tie, both_bad.

    The rule is written out where it is stored: `annotate.services.aggregation.RULE`.
    """
    a, b, tie, bad = (counts[answer] for answer in ("a", "b", "tie", "both_bad"))
    compared = a + b + tie
    probability = (a + tie / 2) / compared if compared else 0.5
    if bad > compared:
        return "both_bad", probability
    if a == b or tie > max(a, b):
        return "tie", probability
    return ("a" if a > b else "b"), probability
