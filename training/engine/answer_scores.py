"""Scores of one answer against its gold answers. Holds no torch.

Exact match and token F1 as SQuAD 1.1 (Rajpurkar et al. 2016, arXiv 1606.05250) computes them: lower
case, without punctuation, English articles and surplus space; the best gold answer counts. Differs
from its script as MLQA's (Lewis et al. 2020, arXiv 1910.07475) does: punctuation of every script is
left out, and a script without spaces gives one token a character, so that F1 is over characters in
Chinese, Japanese and Thai.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from training.engine.domain import UNSPACED

ARTICLES = re.compile(r"\b(a|an|the)\b")
#: What Unicode counts as symbols, and SQuAD (Python's string.punctuation) as punctuation.
SIGNS = "$+<=>^`|~"


def normalised(text: str) -> str:
    """What is compared: lower case, no punctuation, no English article, single spaces."""
    kept = "".join(
        c for c in text.lower() if c not in SIGNS and not unicodedata.category(c).startswith("P")
    )
    return " ".join(ARTICLES.sub(" ", kept).split())


def tokens(text: str) -> list[str]:
    """Words of the normalised text; characters where the script has no spaces between words."""
    found: list[str] = []
    for word in normalised(text).split():
        run = ""
        for character in word:
            if UNSPACED.match(character):
                found += [run, character] if run else [character]
                run = ""
            else:
                run += character
        found += [run] if run else []
    return found


def exact_match(answer: str, gold: Sequence[str]) -> float:
    return float(any(normalised(answer) == normalised(each) for each in gold))


def token_f1(answer: str, gold: Sequence[str]) -> float:
    """The best gold answer's F1 over bags of tokens; where one side has none, 1 if neither has."""
    return max(f1_of(tokens(answer), tokens(each)) for each in gold)


def f1_of(said: Sequence[str], right: Sequence[str]) -> float:
    if not said or not right:
        return float(said == right)
    common = (Counter(said) & Counter(right)).total()
    return 2.0 * common / (len(said) + len(right))


def object_in(answer: str) -> dict[str, str] | None:
    """The first JSON object of an answer, its values as text; None where there is none."""
    decoder = json.JSONDecoder()
    for found in re.finditer(r"\{", answer):
        try:
            value, _ = decoder.raw_decode(answer, found.start())
        except (json.JSONDecodeError, RecursionError):
            continue
        return {
            name: each if isinstance(each, str) else json.dumps(each, ensure_ascii=False)
            for name, each in value.items()
        }
    return None


def field_counts(said: Mapping[str, str] | None, right: Mapping[str, str]) -> dict[str, float]:
    """Of an extraction: fields that are right (name and value, but for case and surplus space),
    fields that were said, and fields that there are."""
    given = said or {}
    hits = sum(name in given and same(given[name], value) for name, value in right.items())
    return {"right": float(hits), "said": float(len(given)), "gold": float(len(right))}


def same(a: str, b: str) -> bool:
    return a.casefold().split() == b.casefold().split()
