"""Vectors under their keys: what an index asks of whoever keeps them, and the file that does.

The other keeper, a table of PostgreSQL, is in `vector_table`; it alone needs a database's driver.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from usearch.index import Index

from training.engine.embedding import Vectors
from training.engine.errors import RunFolderError

STORES = ("usearch", "pgvector")
#: Up to so many vectors are all compared; more are searched along a graph (HNSW).
EXACT = 20_000
FILE = "vectors.usearch"


class VectorStore(Protocol):
    """The unit vectors of one index. An update calls `change`, `save`, and once the manifest names
    what was saved `settle`; until then readers find what they found before."""

    @property
    def index_id(self) -> str | None:
        """Under which the vectors are kept outside the folder; None where they are in it."""

    def __len__(self) -> int:
        """Vectors that the index needs."""

    def keys(self) -> set[int]:
        """Of every vector that is there, needed or not."""

    def change(self, wanted: Collection[int], new: Sequence[int], made: Vectors) -> None:
        """Hold the vectors of `wanted`, of which those of `new` are not there yet.

        made: (len(new), D)
        """

    def save(self, folder: Path) -> None:
        """Write into a data folder what belongs there. Raises OSError, RuntimeError."""

    def settle(self) -> None:
        """Drop what the change before left for the readers of the old state."""

    def search(self, query: Vectors, count: int) -> list[tuple[int, float]]:
        """(key, cosine distance) of the nearest, nearest first; count is at most len(self).

        query: (D,)
        """


class FileVectors:
    """In memory, and in one file of the data folder (usearch)."""

    index_id: str | None = None

    def __init__(self, index: Index) -> None:
        self._index = index

    @classmethod
    def empty(cls, size: int) -> FileVectors:
        return cls(Index(ndim=size, metric="cos", dtype="f32"))

    @classmethod
    def restored(cls, data: Path) -> FileVectors:
        """Raises RunFolderError for a file that is no index."""
        index = Index.restore(str(data / FILE))
        if index is None:
            raise RunFolderError(f"{data / FILE} is no usearch index; make the index anew")
        return cls(index)

    def __len__(self) -> int:
        return len(self._index)

    def keys(self) -> set[int]:
        return {int(key) for key in np.asarray(self._index.keys)} if len(self._index) else set()

    def change(self, wanted: Collection[int], new: Sequence[int], made: Vectors) -> None:
        for key in sorted(self.keys() - set(wanted)):
            self._index.remove(key)
        if new:
            self._index.add(np.asarray(new, dtype=np.uint64), made, threads=1)

    def save(self, folder: Path) -> None:
        self._index.save(str(folder / FILE))

    def settle(self) -> None:
        """Readers of the old state have its file in memory."""

    def search(self, query: Vectors, count: int) -> list[tuple[int, float]]:
        found = self._index.search(query, count, exact=len(self) <= EXACT, threads=1)
        return [
            (int(key), float(distance))
            for key, distance in zip(found.keys, found.distances, strict=True)
        ]
