"""What a model's answers look like: repetition, variety, refusals. Holds no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

#: How refusals in English begin. A heuristic: it misses other words and other languages, and takes
#: an answer that only quotes such a phrase in its first words for a refusal.
REFUSALS = (
    "i can't", "i cannot", "i can not", "i'm sorry", "i am sorry", "i'm unable", "i am unable",
    "i won't", "i will not", "i'm not able", "i am not able", "as an ai", "sorry, but",
    "i must decline", "i apologize, but",
)  # fmt: skip
#: Characters of an answer in which a refusal is looked for.
OPENING = 80


def distinct_n(answers: Sequence[Sequence[int]], n: int) -> float | None:
    """Different n-grams of all answers over all their n-grams (Li et al. 2016, arXiv 1510.03055).

    It falls with the amount of text, so compare equal numbers of answers. None without an n-gram.
    """
    grams = [tuple(answer[i : i + n]) for answer in answers for i in range(len(answer) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def repeated_share(tokens: Sequence[int], n: int = 4) -> float:
    """Share of an answer's n-grams that occur more than once in it; 0 where it is too short."""
    grams = Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
    total = grams.total()
    return sum(count for count in grams.values() if count > 1) / total if total else 0.0


def refuses(text: str) -> bool:
    """Whether an answer opens like a refusal (`REFUSALS`)."""
    opening = text.strip().lower().replace("\u2019", "'")[:OPENING]
    return any(phrase in opening for phrase in REFUSALS)
