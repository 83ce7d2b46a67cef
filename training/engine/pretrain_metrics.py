"""Perplexity of documents before and after training: what was learnt, and what was forgotten.

Perplexity is exp(Σ nats / Σ tokens) over all scored tokens, bits per byte Σ nats / (ln 2 · Σ bytes)
of the text that they stand for, which compares bases whose tokenizers differ. Intervals resample
documents (`intervals`); the change is paired, each document before with itself after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from training.engine.batching import Packing
from training.engine.errors import BaseModelError
from training.engine.intervals import resampled_counts
from training.engine.logprobs import response_logps
from training.engine.models import Base
from training.engine.pretrain_data import Document

#: Windows that are packed at once: their masks are held together.
AT_ONCE = 32
#: exp of more is no number.
LARGEST = 700.0


def document_nats(base: Base, documents: Sequence[Document], packing: Packing) -> list[float]:
    """−log P of each document's scored tokens under the active adapter, in nats.

    Raises BaseModelError where it is not finite.
    """
    windows = [window for document in documents for window in document.windows]
    sums: list[float] = []
    for start in range(0, len(windows), AT_ONCE):
        sums += response_logps(base, windows[start : start + AT_ONCE], packing)[:, 0].tolist()
    if not all(math.isfinite(value) for value in sums):
        raise BaseModelError(
            f"the base {base.config.source!r} gives a text no finite probability; its weights are "
            "damaged, or base.dtype is too small for it"
        )
    parts = iter(sums)
    return [-math.fsum(next(parts) for _ in document.windows) for document in documents]


def figures(
    side: str, documents: Sequence[Document], before: Sequence[float], after: Sequence[float]
) -> tuple[dict[str, float], str]:
    """(metrics of one side, what became of its perplexity: fell, rose or unclear).

    side: domain or general. before, after: nats of each document.
    """
    tokens = np.array([document.n_scored for document in documents], dtype=float)
    size = sum(document.n_bytes for document in documents)
    table = np.array([before, after, np.subtract(after, before)])  # (3, documents)
    means = table.sum(axis=1) / tokens.sum()
    found: dict[str, float] = {}
    ends = interval(table, tokens) if len(documents) > 1 else None
    for line, name in enumerate(("perplexity_before", "perplexity_after", "change")):
        less = 1.0 if name == "change" else 0.0
        key = f"pretrain/{side}_{name}"
        found[key] = power(means[line]) - less
        if ends is not None:
            found[f"{key}_low"], found[f"{key}_high"] = (power(e) - less for e in ends[line])
    for nats, name in ((before, "before"), (after, "after")):
        if size:
            found[f"pretrain/{side}_bits_per_byte_{name}"] = sum(nats) / math.log(2) / size
    low = found.get(f"pretrain/{side}_change_low", -1.0)
    high = found.get(f"pretrain/{side}_change_high", 1.0)
    return found, "fell" if high < 0.0 else "rose" if low > 0.0 else "unclear"


def interval(table: np.ndarray, tokens: np.ndarray) -> list[tuple[float, float]]:
    """95 % percentile intervals of nats per token, resampling documents, for each line.

    table: (lines, documents). tokens: (documents,)
    """
    drawn = [
        (counts @ table.T) / (counts @ tokens)[:, None] for counts in resampled_counts(len(tokens))
    ]
    low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def power(nats: float) -> float:
    return math.exp(min(LARGEST, float(nats)))
