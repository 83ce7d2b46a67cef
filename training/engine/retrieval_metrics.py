"""How well rankings find what was sought. Holds no torch.

A ranking lists documents, best first, each once; `relevant` holds those that were sought.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence


def recall_at(ranking: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Share of the relevant documents that are among the first k."""
    return len(set(ranking[:k]) & set(relevant)) / len(set(relevant))


def reciprocal_rank(ranking: Sequence[str], relevant: Collection[str]) -> float:
    """1 / rank of the first relevant document, 0 where none was found; its mean is MRR."""
    ranks = (rank for rank, name in enumerate(ranking, start=1) if name in relevant)
    return 1.0 / next(ranks, math.inf)


def ndcg_at(ranking: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Σ 1/log₂(rank + 1) over relevant documents among the first k, divided by the most there
    could be (Järvelin & Kekäläinen 2002, with a gain of 1)."""
    gains = [1.0 / math.log2(rank + 1) for rank in range(1, k + 1)]
    found = sum(gain for gain, name in zip(gains, ranking, strict=False) if name in relevant)
    return found / sum(gains[: len(set(relevant))])
