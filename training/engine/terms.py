"""Text to the terms that a sparse index counts.

Languages with spaces give words. Chinese, Japanese, Thai and their like have none between words
and give characters and pairs of them; Arabic, Persian and Hebrew glue articles, prepositions and
pronouns to a word and give its n-grams, as Korean does (character n-grams as a language-independent
index: McNamee & Mayfield 2004). Holds no torch.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from training.engine.domain import UNSPACED

#: auto: by the script of each word. words: whole words, whatever the script. characters: n-grams.
KINDS = ("auto", "words", "characters")
#: Scripts that are written with spaces, and whose words are more than one: Hebrew, Arabic, Hangul.
GLUED = re.compile("[\u0590-\u08ff\u1100-\u11ff\uac00-\ud7af\ufb1d-\ufdff\ufe70-\ufeff]")
#: Lengths of n-grams of words whose script has spaces; a shorter word is its own.
GRAMS = (3, 4)
TATWEEL = "\u0640"


def terms(text: str, kind: str = "auto") -> list[str]:
    """The terms of a text in order, with repetitions."""
    found: list[str] = []
    for word, unspaced in runs(folded(text)):
        if kind == "words":
            found.append(word)
        elif unspaced:
            found += [*word, *grams(word, 2)]
        elif kind == "characters" or GLUED.match(word):
            found += grams_of_word(word)
        else:
            found.append(word)
    return found


def folded(text: str) -> str:
    """One spelling: compatibility forms, case, without Arabic's and Hebrew's optional marks."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in plain if c != TATWEEL and not is_optional_mark(c))


def is_optional_mark(character: str) -> bool:
    """A vowel sign that writers leave out; in most other scripts a mark is a letter's part."""
    return "\u0590" <= character <= "\u08ff" and unicodedata.category(character) == "Mn"


def runs(text: str) -> Iterator[tuple[str, bool]]:
    """(letters and digits in a row, whether their script has no spaces)."""
    run, kind = "", False
    for character in text:
        inside = unicodedata.category(character)[0] in "LMN"
        unspaced = UNSPACED.match(character) is not None
        if run and (not inside or unspaced != kind):
            yield run, kind
            run = ""
        if inside:
            run, kind = run + character, unspaced
    if run:
        yield run, kind


def grams(word: str, n: int) -> list[str]:
    return [word[i : i + n] for i in range(len(word) - n + 1)]


def grams_of_word(word: str) -> list[str]:
    if len(word) <= GRAMS[0]:
        return [word]
    return [gram for n in GRAMS for gram in grams(word, n)]
