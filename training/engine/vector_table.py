"""Vectors in a table of PostgreSQL, by its extension pgvector; one table for every index.

    retrieval_vectors      index_id, key, vector; the id is in the manifest of the index's folder

The database and the folder cannot change in one step, so an update adds first, in one transaction,
then the folder's manifest names the new state, and what that no longer needs is deleted last. A
vector is kept under the hash of its text and never changes, so that readers of the old state find
all they need until the manifest is there; they pass over what they do not know. What an update that
was cut off has left is deleted by the next one.
"""

from __future__ import annotations

import contextlib
import os
import re
import weakref
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql

from training.engine.embedding import Vectors
from training.engine.errors import RunFolderError
from training.engine.vector_store import EXACT

#: Names the variable that holds the database's address; the address itself is told nobody.
URL = "VECTORS_DATABASE_URL"
#: Without bounds a server that went silent would hold us for minutes.
CONNECT_TIMEOUT_S, SILENCE_MS = 5, 15_000
#: Most numbers of a vector in an HNSW graph (pgvector's own bound for `vector`).
LARGEST_GRAPH = 2_000
#: Candidates that are kept during a search along the graph: at least, and at most (pgvector's).
CANDIDATES = (100, 1_000)

TABLE = """CREATE TABLE IF NOT EXISTS retrieval_vectors (
    index_id text NOT NULL, key bigint NOT NULL, vector vector NOT NULL,
    PRIMARY KEY (index_id, key))"""
#: A graph of one index's vectors alone: in a shared one the others' would crowd them out.
GRAPH = """CREATE INDEX IF NOT EXISTS {name} ON retrieval_vectors
    USING hnsw ((vector::vector({size})) vector_cosine_ops) WHERE index_id = {index_id}"""
#: The id is a literal, else the planner could not tell that the graph is that of this index.
NEAREST = """SELECT key, vector::vector({size}) <=> %s::vector({size}) AS distance
    FROM retrieval_vectors WHERE index_id = {index_id} ORDER BY distance LIMIT %s"""


class TableVectors:
    """The vectors of one index among those of others."""

    def __init__(self, index_id: str, size: int, folder: Path, *, exact: int = EXACT) -> None:
        """folder: of the index, whom messages name. exact: without a graph up to so many."""
        self.index_id, self._size, self._folder, self._exact = index_id, size, folder, exact
        self._wanted: frozenset[int] = frozenset()
        self._state: Path | None = None
        self._kept: psycopg.Connection[Any] | None = None
        self._graph = sql.Identifier(f"retrieval_vectors_{index_id}")

    def expect(self, wanted: Collection[int], state: Path) -> None:
        """Be what the folder's manifest names. Raises RunFolderError where vectors are missing.

        state: a file of the folder that is there for as long as the manifest names it.
        """
        self._wanted, self._state = frozenset(wanted), state
        lacking = len(self._wanted - self.keys())
        if lacking:
            raise RunFolderError(
                f"{self._folder} needs {len(self)} vectors, and the database that {URL} names "
                f"lacks {lacking} of them: it is another one, was set back, or a copy of the "
                "folder was changed; name the right one, or index the documents in a new folder"
            )

    def __len__(self) -> int:
        return len(self._wanted)

    def keys(self) -> set[int]:
        with self._transaction() as connection:
            if not there(connection):
                return set()
            rows = connection.execute(
                "SELECT key FROM retrieval_vectors WHERE index_id = %s", [self.index_id]
            )
            return {key for (key,) in rows}

    def change(self, wanted: Collection[int], new: Sequence[int], made: Vectors) -> None:
        with self._transaction() as connection:
            if not there(connection):
                # Of two that make the table at the same time one would fail.
                connection.execute("SELECT pg_advisory_xact_lock(hashtext('retrieval_vectors'))")
                connection.execute(TABLE)
            with connection.cursor().copy(
                "COPY retrieval_vectors (index_id, key, vector) FROM STDIN WITH (FORMAT BINARY)"
            ) as copy:
                copy.set_types(["text", "int8", "vector"])
                for key, vector in zip(new, made, strict=True):
                    copy.write_row((self.index_id, key, vector))
            if len(wanted) > self._exact and self._size <= LARGEST_GRAPH:
                connection.execute(self._filled(GRAPH, name=self._graph))
        self._wanted = frozenset(wanted)

    def save(self, folder: Path) -> None:
        """Nothing of it is in the folder."""

    def settle(self) -> None:
        # The update is done; whatever stays is passed over, and dropped by the next one.
        with contextlib.suppress(RunFolderError), self._transaction() as connection:
            connection.execute(
                "DELETE FROM retrieval_vectors WHERE index_id = %s AND key <> ALL(%s)",
                [self.index_id, sorted(self._wanted)],
            )

    def delete(self) -> None:
        """Delete all rows of the index, and its graph. Raises RunFolderError."""
        graph = sql.SQL("DROP INDEX IF EXISTS {name}").format(name=self._graph)
        with self._transaction() as connection:
            if there(connection):
                connection.execute(
                    "DELETE FROM retrieval_vectors WHERE index_id = %s", [self.index_id]
                )
                connection.execute(graph)

    def search(self, query: Vectors, count: int) -> list[tuple[int, float]]:
        """Raises RunFolderError where the index has changed since it was opened."""
        found = self._nearest(query, count)
        if len(found) < count:  # the graph gave up, or rows that are not ours stood before ours
            found = self._nearest(query, None)
        if len(found) < count or (self._state is not None and not self._state.exists()):
            raise RunFolderError(f"{self._folder} has changed since it was opened; open it again")
        return found[:count]

    def _nearest(self, query: Vectors, limit: int | None) -> list[tuple[int, float]]:
        """Those needed among the `limit` nearest; all of them, and without the graph, for None."""
        settings = "SET LOCAL enable_indexscan = off"
        if limit is not None:
            least, most = CANDIDATES
            settings = f"SET LOCAL hnsw.ef_search = {min(most, max(least, 2 * limit))}"
        with self._told():
            try:
                rows = self._asked(settings, query, limit)
            except psycopg.OperationalError:  # the server was started again since the last search
                rows = self._asked(settings, query, limit)
        return [(key, distance) for key, distance in rows if key in self._wanted]

    def _asked(self, settings: str, query: Vectors, limit: int | None) -> list[tuple[int, float]]:
        if self._kept is None or self._kept.closed:
            self._kept = connect(self._folder)
            weakref.finalize(self, self._kept.close)
        with self._kept.transaction():
            self._kept.execute(sql.SQL(settings))
            asked = self._filled(NEAREST)
            return self._kept.execute(asked, [query, limit], prepare=False).fetchall()

    def _filled(self, template: str, **parts: sql.Composable) -> sql.Composed:
        size, index_id = sql.Literal(self._size), sql.Literal(self.index_id)
        return sql.SQL(template).format(size=size, index_id=index_id, **parts)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection of its own, all or nothing of whose work is kept."""
        with self._told(), connect(self._folder) as connection:
            yield connection

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What the database says against it as RunFolderError."""
        try:
            yield
        except psycopg.Error as error:
            raise RunFolderError(
                f"the vectors of {self._folder}: the database that {URL} names failed "
                f"({first_line(error)}); start again once it works"
            ) from None


def there(connection: psycopg.Connection[Any]) -> bool:
    """Whether any index was ever kept in this database."""
    row = connection.execute("SELECT to_regclass('retrieval_vectors')").fetchone()
    return row is not None and row[0] is not None


def connect(folder: Path) -> psycopg.Connection[Any]:
    """To the database that the environment names. Raises RunFolderError with what to do."""
    url = os.environ.get(URL, "")
    if not url:
        raise RunFolderError(
            f"the vectors of {folder} are kept in PostgreSQL, and {URL} is not set; set it to "
            "postgres://user:password@host:port/name"
        )
    try:
        connection = psycopg.connect(
            url, connect_timeout=CONNECT_TIMEOUT_S, tcp_user_timeout=SILENCE_MS
        )
    except psycopg.OperationalError as error:
        # What is in quotes may be a part of the password, where that holds a @ or a /.
        reason = re.sub(r"\"[^\"]*\"|'[^']*'", "…", first_line(error)).split(": ")[-1].strip()
        raise RunFolderError(
            f"the vectors of {folder} are in the database that {URL} names, which cannot be "
            f"reached ({reason}); start it, or correct {URL}"
        ) from None
    except psycopg.Error:  # it quotes the address
        raise RunFolderError(
            f"the vectors of {folder} are kept in PostgreSQL, and {URL} is no address of one; use "
            "postgres://user:password@host:port/name"
        ) from None
    try:
        register_vector(connection)
    except psycopg.ProgrammingError as error:
        connection.close()
        raise RunFolderError(
            f"the vectors of {folder}: the database that {URL} names has no pgvector "
            f"({first_line(error)}); install it on the server, "
            "and run CREATE EXTENSION vector in that database"
        ) from None
    return connection


def first_line(error: psycopg.Error) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
