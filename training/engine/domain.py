"""How far a user's texts are from general ones, as a base sees them: numbers and what they mean.

- Bits per byte: −log₂ P(text) / bytes under the base (its own log-probs, `logprobs.py`), beside
  those of general text under the same base. Bytes and not tokens, because a text that the tokenizer
  cuts finely has more tokens and each of them is easier; the perplexity per token is given as well.
- Fertility: tokens per word (Rust et al. 2021, arXiv 2012.15613, where a word-cut text that stays
  whole has 1). Words here are runs of letters, marks and digits; a Chinese or Japanese character
  and a punctuation mark is a word of its own, since there are no spaces to cut at.
- Vocabulary: the share of words that are one token, and the share of tokens that stand for no text
  of their own: unknown ones, and pieces of a character (byte fallback).

The distance is the largest of what bits, fertility and lost tokens say, each from 0 to 1 between
the thresholds below. Torch is imported only where the base is run.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.engine.errors import BaseModelError, DataError
from training.engine.files import REPLACED
from training.engine.stretches import STRETCHES, stretches

if TYPE_CHECKING:
    from training.engine.models import Base

#: (which stretch, index of its first token) of a window.
Place = tuple[int, int]
#: General English, written for this purpose: news, letters, instructions, talk.
GENERAL = Path(__file__).with_name("general.txt")
#: Tokens of a window that the base reads at once, and how many windows of a text it reads.
WINDOW, WINDOWS = 256, 16
#: Less text than this says more about the sample than about the domain.
LEAST_TOKENS = 2 * WINDOW
#: The most frequent distinct words that are looked up in the vocabulary.
WORDS = 5_000
LARGEST_FILE = 256 * 2**20
#: From where on a number means something, and from where on it is as far as can be. Our own, drawn
#: from what SmolLM2-135M-Instruct makes of eight texts beside the enclosed one (the table is in
#: docs/how-to/choose-an-adaptation.md). Bits per byte, as a ratio: modern English of four kinds
#: 0.8 to 0.95, Python 1.16, Shakespeare 1.48, Arabic 1.63, Chinese 2.19.
BITS_NEAR, BITS_FAR = 1.0, 2.0
#: Tokens per word, as a ratio: English 0.95 to 1.25, Chinese characters 1.82, Arabic 4.77.
FERTILITY_NEAR, FERTILITY_FAR = 1.2, 2.5
#: Share of lost tokens above general text's: English below 0.005, Arabic 0.32, Chinese 0.76.
LOST_NEAR, LOST_FAR = 0.0, 0.1
#: Scripts whose words are not set apart: every character counts as one.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True, kw_only=True)
class TextMeasure:
    """What a base makes of a text."""

    characters: int
    words: int
    tokens: int
    """Of the stretches that were looked at."""
    scored_tokens: int
    """Of those, how many the base was asked for."""
    bits_per_byte: float
    bits_error: float | None
    """Standard error of it over the windows; None with a single one."""
    perplexity: float
    """exp of the mean negative log-probability of a token."""
    fertility: float
    """Tokens per word."""
    whole_words: float
    """Share of words that are one token."""
    lost_tokens: float
    """Share of tokens that are unknown, or only a piece of a character."""


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One of the numbers that the distance is made of."""

    name: str
    own: float
    general: float
    level: float
    """0 (like general text) to 1."""
    says: str


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far a text is from general text under a base."""

    base: str
    own: TextMeasure
    general: TextMeasure
    signals: list[Signal]
    notes: list[str] = field(default_factory=list)

    @property
    def distance(self) -> float:
        """0 to 1: the largest of the signals' levels."""
        return max(signal.level for signal in self.signals)

    def as_json(self) -> dict[str, Any]:
        return {"distance": self.distance, **asdict(self)}

    def table(self) -> str:
        """The numbers side by side, for a terminal."""
        rows = [
            ("bits per byte", "bits_per_byte", "{:.3f}"),
            ("perplexity per token", "perplexity", "{:.1f}"),
            ("tokens per word", "fertility", "{:.2f}"),
            ("words that are one token", "whole_words", "{:.1%}"),
            ("unknown or broken tokens", "lost_tokens", "{:.2%}"),
            ("tokens looked at", "tokens", "{:,}"),
            ("tokens scored", "scored_tokens", "{:,}"),
        ]
        lines = [f"{'under ' + self.base:<26} {'own text':>10} {'general':>10}"]
        for title, name, form in rows:
            own, other = getattr(self.own, name), getattr(self.general, name)
            lines.append(f"{title:<26} {form.format(own):>10} {form.format(other):>10}")
        lines += [f"{each.name}: {each.says}: {each.level:.2f} of 1" for each in self.signals]
        lines.append(f"domain distance: {self.distance:.2f} of 1 (the largest)")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def measure_files(files: Sequence[Path], source: str, *, general: Path | None = None) -> Distance:
    """The distance of texts in files, under the base that a run's `base.source` names.

    Raises DataError for what is no text, or too little of it; BaseModelError for a base that
    writes none, or cannot be loaded.
    """
    if not files:
        raise DataError("no file of the domain's texts is named; give at least one")
    own = [read_text(path) for path in files]
    other = [read_text(general or GENERAL)]
    from training.engine.config import BaseConfig
    from training.engine.models import load_base

    base = load_base(BaseConfig(source=source))
    named = f"{len(files)} files" if len(files) > 1 else str(files[0])
    return measure(own, base, general=other, named=named)


def measure(
    own: Sequence[str],
    base: Base,
    *,
    general: Sequence[str] | None = None,
    named: str = "the text",
) -> Distance:
    """The distance of texts under a loaded base without adapters.

    general: what to compare with; enclosed English by default. Raises DataError for too little.
    """
    other = list(general) if general is not None else [read_text(GENERAL)]
    measured = text_measure(own, base, named)
    against = text_measure(other, base, "the general text")
    return Distance(
        base=base.config.source,
        own=measured,
        general=against,
        signals=signals(measured, against),
        notes=notes(measured, against),
    )


def signals(own: TextMeasure, general: TextMeasure) -> list[Signal]:
    """What each number says, from 0 to 1."""
    bits = own.bits_per_byte / max(1e-9, general.bits_per_byte)
    cut = own.fertility / max(1e-9, general.fertility)
    lost = max(0.0, own.lost_tokens - general.lost_tokens)
    return [
        Signal(
            name="bits per byte",
            own=own.bits_per_byte,
            general=general.bits_per_byte,
            level=share(bits, BITS_NEAR, BITS_FAR),
            says=f"{bits:.2f} times general text's; far from {BITS_FAR:g} on",
        ),
        Signal(
            name="fertility",
            own=own.fertility,
            general=general.fertility,
            level=share(cut, FERTILITY_NEAR, FERTILITY_FAR),
            says=f"{cut:.2f} times general text's; far from {FERTILITY_FAR:g} on",
        ),
        Signal(
            name="lost tokens",
            own=own.lost_tokens,
            general=general.lost_tokens,
            level=share(lost, LOST_NEAR, LOST_FAR),
            says=f"{lost:.2%} more than in general text; far from {LOST_FAR:.0%} on",
        ),
    ]


def share(value: float, near: float, far: float) -> float:
    """0 at `near` and below, 1 at `far` and above, straight between."""
    return min(1.0, max(0.0, (value - near) / (far - near)))


def notes(own: TextMeasure, general: TextMeasure) -> list[str]:
    found = []
    if own.bits_error is not None and own.bits_error > 0.1 * own.bits_per_byte:
        found.append(
            f"the text's parts differ much (±{own.bits_error:.2f} bits per byte); give more of it"
        )
    if own.scored_tokens < WINDOW * WINDOWS // 2:
        found.append(f"only {own.scored_tokens:,} tokens of your text could be scored")
    if own.bits_per_byte < 0.5 * general.bits_per_byte:
        found.append(
            "the base foresees your text far better than general text: it repeats itself, or the "
            "base has been trained on it"
        )
    return found


def text_measure(texts: Sequence[str], base: Base, named: str) -> TextMeasure:
    """Everything about one side. Raises DataError where there is too little."""
    parts = [part for text in texts for part in stretches(text, max(1, STRETCHES // len(texts)))]
    encoded = [tokens_of(base, part) for part in parts]
    n_tokens = sum(len(ids) for ids, _ in encoded)
    if n_tokens < LEAST_TOKENS:
        raise DataError(
            f"{named} has {n_tokens} tokens, and {LEAST_TOKENS} are the least that a distance can "
            "be measured on; give more text of the domain"
        )
    counts = Counter(word for part in parts for word in words(part))
    nats, scored, per_window = window_bits(base, parts, encoded, named)
    size = sum(weight for _, weight in per_window)
    return TextMeasure(
        characters=sum(len(part) for part in parts),
        words=counts.total(),
        tokens=n_tokens,
        scored_tokens=scored,
        bits_per_byte=nats / math.log(2) / size,
        bits_error=standard_error([bits / weight for bits, weight in per_window]),
        perplexity=math.exp(min(700.0, nats / scored)),
        fertility=n_tokens / max(1, counts.total()),
        whole_words=whole_words(base, counts),
        lost_tokens=lost_tokens(base, [i for ids, _ in encoded for i in ids]),
    )


def words(text: str) -> Iterator[str]:
    """Runs of letters, marks and digits; each other visible character is a word by itself."""
    word: list[str] = []
    for character in text:
        if UNSPACED.match(character) is None and unicodedata.category(character)[0] in "LMN":
            word.append(character)
            continue
        if word:
            yield "".join(word)
            word = []
        if not character.isspace():
            yield character
    if word:
        yield "".join(word)


def tokens_of(base: Base, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """(token ids, where in the text each begins and ends). Raises BaseModelError.

    Text that spells a special token stays text.
    """
    try:
        found = base.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
            verbose=False,
        )
    except NotImplementedError:
        raise BaseModelError(
            f"the tokenizer of {base.config.source!r} does not say which characters a token stands "
            "for; a base with a tokenizer.json is needed"
        ) from None
    return list(found["input_ids"]), [(int(a), int(b)) for a, b in found["offset_mapping"]]


def window_bits(
    base: Base,
    parts: Sequence[str],
    encoded: Sequence[tuple[list[int], list[tuple[int, int]]]],
    named: str,
) -> tuple[float, int, list[tuple[float, int]]]:
    """(nats of all scored tokens, how many, (bits, bytes) of each window).

    The first token of a window is given and not scored: nothing comes before it.
    """
    from training.engine.batching import Packing
    from training.engine.data import Branch, Tree
    from training.engine.logprobs import response_logps

    size = min(WINDOW, base.positions or WINDOW)
    places = [
        (part, start)
        for part, (ids, _) in enumerate(encoded)
        for start in range(0, len(ids) - size + 1, size)
    ]
    if not places:
        raise DataError(
            f"no part of {named} has {size} tokens in a row; join its pieces to longer texts"
        )
    trees, sizes = [], []
    for part, start in spread(places, WINDOWS):
        ids, where = encoded[part]
        chosen = ids[start : start + size]
        begin, end = where[start + 1][0], where[start + size - 1][1]
        trees.append(Tree((chosen[0],), (Branch(tuple(chosen[1:])),)))
        sizes.append(max(1, len(parts[part][begin:end].encode())))
    sums = response_logps(base, trees, Packing(size, shared=False))[:, 0].tolist()
    if not all(math.isfinite(value) for value in sums):
        raise BaseModelError(
            f"the base {base.config.source!r} gives a text no finite probability; its weights are "
            "damaged, or base.dtype is too small for it"
        )
    per_window = [(-value / math.log(2), size) for value, size in zip(sums, sizes, strict=True)]
    return -sum(sums), len(trees) * (size - 1), per_window


def spread(items: Sequence[Place], most: int) -> list[Place]:
    """At most so many of them, evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean of independent values: s / √n. None for fewer than two."""
    n = len(values)
    if n < 2:
        return None
    mean = sum(values) / n
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)


def whole_words(base: Base, counts: Counter[str]) -> float:
    """Share of words, by how often they occur, that are one known token (behind a space)."""
    unknown = base.tokenizer.unk_token_id
    whole = total = 0
    for word, count in counts.most_common(WORDS):
        ids = base.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        total += count
        whole += count if len(ids) == 1 and ids[0] != unknown else 0
    return whole / max(1, total)


def lost_tokens(base: Base, ids: Sequence[int]) -> float:
    """Share of tokens that are unknown, a byte, or a piece of a character."""

    @cache
    def lost(token: int) -> bool:
        if token == base.tokenizer.unk_token_id:
            return True
        name = base.tokenizer.convert_ids_to_tokens(token)
        return BYTE.fullmatch(str(name)) is not None or "\ufffd" in base.tokenizer.decode([token])

    return sum(lost(token) for token in ids) / max(1, len(ids))


def read_text(path: Path) -> str:
    """A file as text. Raises DataError saying what is wrong with it and what to do."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; name the text files in it")
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise DataError(
                f"{path} has {size / 2**20:,.0f} MB; a part of it is enough, at most "
                f"{LARGEST_FILE // 2**20} MB (head -c)"
            )
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return decoded(data, str(path))


def decoded(data: bytes, named: str) -> str:
    """Bytes as UTF-8 text. Raises DataError for another encoding, a binary or an empty file."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{named} is UTF-16; convert it: iconv -f UTF-16 -t UTF-8")
    if data.startswith((b"\x1f\x8b", b"PK\x03\x04", b"%PDF")):
        raise DataError(f"{named} is compressed or a PDF; give the plain text that it holds")
    if b"\x00" in data:
        raise DataError(f"{named} holds zero bytes, so it is no UTF-8 text; convert it (iconv)")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{named} is not UTF-8: byte {error.start} (line {line}) is 0x{data[error.start]:02x}; "
            "convert it, such as iconv -f ISO-8859-1 -t UTF-8, or -f GB18030"
        ) from None
    if not text.strip():
        raise DataError(f"{named} is empty; give the domain's texts")
    replaced = text.count("\ufffd") / len(text)
    if replaced > REPLACED:
        raise DataError(
            f"{replaced:.0%} of {named} are replacement characters (U+FFFD): it was read in a "
            "wrong encoding before; go back to its source"
        )
    return text
