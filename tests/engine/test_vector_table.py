"""Vectors in PostgreSQL: found as in the file, changed as a whole or not at all, and apart."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest

from tests.engine.tiny import make_run, result
from training.engine.__main__ import main
from training.engine.compare_stages import Stages
from training.engine.documents import Document
from training.engine.errors import ConfigError, RunFolderError
from training.engine.retrieval import IndexSettings, delete_index, open_index, update_index
from training.engine.vector_store import FileVectors
from training.engine.vector_table import NEAREST, TableVectors

SERVER = os.environ.get("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")
TABLE = IndexSettings(vectors="pgvector")
CATS = Document("cats", "A cat sleeps on the warm roof.")
SHIPS = Document("ships", "The ship left the harbour at dawn.")
TAX = Document("tax", "Income tax is due in April.", "Taxes")
#: A row of this key ends the server's process that is about to store it.
FATAL = 666


@contextlib.contextmanager
def database(*, extension: bool) -> Iterator[str]:
    """The address of a new database. Skips where there can be none."""
    name = f"vectors_{secrets.token_hex(6)}"
    try:
        server = psycopg.connect(SERVER, autocommit=True, connect_timeout=3)
    except psycopg.Error as error:
        pytest.skip(f"no PostgreSQL answers ({str(error).splitlines()[0]})")
    with server:
        known = server.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")
        if known.fetchone() is None:
            pytest.skip("this PostgreSQL has not the extension pgvector")
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            url = psycopg.conninfo.make_conninfo(SERVER, dbname=name)
            if extension:
                with psycopg.connect(url) as connection:
                    connection.execute("CREATE EXTENSION vector")
            yield url
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def made() -> Iterator[str]:
    with database(extension=True) as url:
        yield url


@pytest.fixture
def url(made: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("VECTORS_DATABASE_URL", made)
    return made


def rows(url: str, query: str, name: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute(query, [name]).fetchone()
    assert found is not None
    return int(found[0])


def units(count: int, size: int = 8) -> np.ndarray:
    found = np.random.default_rng(0).normal(size=(count, size)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def filled(index_id: str, vectors: np.ndarray, folder: Path, *, exact: int) -> TableVectors:
    table = TableVectors(index_id, vectors.shape[1], folder, exact=exact)
    table.change(range(len(vectors)), range(len(vectors)), vectors)
    return table


def found_in(folder: Path, mode: str = "dense", k: int = 2) -> list[tuple[str, float]]:
    hits = open_index(folder).search("a bird that talks", k, mode)
    return [(hit.chunk.id, hit.score) for hit in hits]


@pytest.mark.parametrize("graph", [False, True])
def test_the_table_finds_what_the_file_finds_in_the_same_order(
    graph: bool, url: str, tmp_path: Path
) -> None:
    vectors, index_id = units(100), secrets.token_hex(8)
    table = filled(index_id, vectors, tmp_path, exact=50 if graph else 100)
    file = FileVectors.empty(8)
    file.change(range(100), range(100), vectors)
    graphs = (
        "SELECT count(*) FROM pg_indexes "
        "WHERE indexname = %s AND indexdef LIKE '%%hnsw%%vector_cosine_ops%%'"
    )
    assert rows(url, graphs, f"retrieval_vectors_{index_id}") == int(graph)
    for query in units(20) * -1:
        for count in (1, 10, 100):
            ours, theirs = table.search(query, count), file.search(query, count)
            assert [key for key, _ in ours] == [key for key, _ in theirs]
            distances = [distance for _, distance in theirs]
            assert [distance for _, distance in ours] == pytest.approx(distances, abs=1e-6)


def test_the_graph_of_an_index_is_what_a_search_of_it_walks_along(url: str, tmp_path: Path) -> None:
    table = filled(secrets.token_hex(8), units(300), tmp_path, exact=100)
    with psycopg.connect(url) as connection:
        connection.execute("SET enable_seqscan = off; SET enable_sort = off")
        asked = table._filled("EXPLAIN " + NEAREST)
        vector = "[" + ",".join(map(str, units(1)[0])) + "]"
        plan = "\n".join(line for (line,) in connection.execute(asked, [vector, 5]))
    assert f"Index Scan using retrieval_vectors_{table.index_id}" in plan


def test_deleting_an_index_deletes_its_rows_and_its_graph_and_nobody_elses(
    url: str, tmp_path: Path
) -> None:
    counted = "SELECT count(*) FROM retrieval_vectors WHERE index_id = %s"
    graphs = "SELECT count(*) FROM pg_indexes WHERE indexname = 'retrieval_vectors_' || %s"
    other, large = (filled(secrets.token_hex(8), units(60), tmp_path, exact=50) for _ in range(2))
    large.delete()
    assert (rows(url, counted, large.index_id), rows(url, graphs, large.index_id)) == (0, 0)
    update_index(tmp_path / "i", [CATS, SHIPS], settings=TABLE)
    gone = str(json.loads((tmp_path / "i/manifest.json").read_text())["vectors_id"])
    assert rows(url, counted, gone) == 2
    delete_index(tmp_path / "i")
    assert rows(url, counted, gone) == 0
    assert not (tmp_path / "i").exists()
    assert (rows(url, counted, other.index_id), rows(url, graphs, other.index_id)) == (60, 1)


def test_documents_are_added_changed_and_removed_as_in_a_file(url: str, tmp_path: Path) -> None:
    folder, file = tmp_path / "table", tmp_path / "file"
    new = Document("ships", "A parrot speaks.")
    for into, settings in ((folder, TABLE), (file, IndexSettings())):
        assert update_index(into, [CATS, SHIPS], settings=settings).encoded == 2
        changes = update_index(into, [new, TAX, CATS])
        assert (changes.added, changes.changed, changes.unchanged, changes.encoded) == (1, 1, 1, 2)
        assert update_index(into, [], remove=["tax"]).encoded == 0
    for mode in ("bm25", "dense", "hybrid"):
        ours, theirs = found_in(folder, mode), found_in(file, mode)
        assert [name for name, _ in ours] == [name for name, _ in theirs]
        scores = [score for _, score in theirs]
        assert [score for _, score in ours] == pytest.approx(scores, abs=1e-6)
    assert found_in(folder)[0][0].startswith("ships")
    manifest = json.loads((folder / "manifest.json").read_text())
    own = "SELECT count(*) FROM retrieval_vectors WHERE index_id = %s"
    assert rows(url, own, manifest["vectors_id"]) == 2
    assert not list(folder.glob("data-*/vectors.usearch"))
    with pytest.raises(RunFolderError, match="made with other settings"):
        update_index(folder, [TAX], settings=IndexSettings())


def test_two_indexes_in_one_table_do_not_see_each_other(url: str, tmp_path: Path) -> None:
    update_index(tmp_path / "a", [CATS, SHIPS], settings=TABLE)
    before = found_in(tmp_path / "a")
    update_index(tmp_path / "b", [CATS, Document("bird", "A bird that talks.")], settings=TABLE)
    assert found_in(tmp_path / "a") == before
    assert found_in(tmp_path / "b")[0][0].startswith("bird")
    update_index(tmp_path / "b", [], remove=["cats"])
    assert found_in(tmp_path / "a") == before


def test_a_database_that_goes_away_in_the_middle_leaves_the_old_state(
    url: str, tmp_path: Path
) -> None:
    index_id, vectors = secrets.token_hex(8), units(1000)
    table = filled(index_id, vectors[:10], tmp_path, exact=1000)
    with psycopg.connect(url) as connection:
        connection.execute(
            f"""CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
            CREATE TRIGGER die BEFORE INSERT ON retrieval_vectors FOR EACH ROW
            WHEN (NEW.key = {FATAL}) EXECUTE FUNCTION die()"""
        )
    try:
        with pytest.raises(RunFolderError, match=r"VECTORS_DATABASE_URL names failed \(termin"):
            table.change(range(1000), range(10, 1000), vectors[10:])
    finally:
        with psycopg.connect(url) as connection:
            connection.execute("DROP FUNCTION die CASCADE")
    assert table.keys() == set(range(10))
    assert {key for key, _ in table.search(vectors[5], 10)} == set(range(10))


def test_an_update_that_the_database_refuses_changes_nothing_and_can_be_done_again(
    url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "i"
    update_index(folder, [CATS, SHIPS], settings=TABLE)
    before = (folder / "manifest.json").read_bytes(), found_in(folder)
    with psycopg.connect(url) as connection:
        connection.execute(
            "ALTER TABLE retrieval_vectors ADD CONSTRAINT none CHECK (false) NOT VALID"
        )
    try:
        with pytest.raises(RunFolderError, match="names failed"):
            update_index(folder, [TAX], remove=["cats"])
    finally:
        with psycopg.connect(url) as connection:
            connection.execute("ALTER TABLE retrieval_vectors DROP CONSTRAINT none")
    assert ((folder / "manifest.json").read_bytes(), found_in(folder)) == before
    update_index(folder, [TAX], remove=["cats"])
    assert {chunk.document for chunk in open_index(folder).chunks} == {"ships", "tax"}


def test_what_a_cut_off_update_left_is_passed_over_and_dropped_by_the_next(
    url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "i"
    update_index(folder, [CATS, SHIPS], settings=TABLE)
    before = found_in(folder)
    left = open_index(folder)
    assert left.vectors is not None
    nearest = np.repeat(left.encoder.encode(["a bird that talks"]), 5, axis=0)
    left.vectors.change([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], nearest)  # and then it is killed
    assert found_in(folder) == before
    assert open_index(folder).vectors.keys() > {1, 2, 3, 4, 5}  # type: ignore[union-attr]
    update_index(folder, [TAX])
    assert not open_index(folder).vectors.keys() & {1, 2, 3, 4, 5}  # type: ignore[union-attr]


def test_a_reader_of_the_old_state_is_told_and_finds_nothing_half(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "i"
    update_index(folder, [CATS, SHIPS], settings=TABLE)
    reader = open_index(folder)
    assert reader.search("a roof", 1, "dense")[0].chunk.document == "cats"
    update_index(folder, [TAX], remove=["ships"])
    with pytest.raises(RunFolderError, match="has changed since it was opened"):
        reader.search("a roof", 1, "dense")


def test_a_search_outlives_a_server_that_was_started_again(url: str, tmp_path: Path) -> None:
    table = filled(secrets.token_hex(8), units(10), tmp_path, exact=10)
    before = table.search(units(1)[0], 3)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert table.search(units(1)[0], 3) == before


def test_a_database_that_lacks_the_vectors_is_not_taken_for_the_right_one(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update_index(tmp_path / "i", [CATS, SHIPS], settings=TABLE)
    with database(extension=True) as other:
        monkeypatch.setenv("VECTORS_DATABASE_URL", other)
        with pytest.raises(RunFolderError, match=r"needs 2 vectors, .* lacks 2 of them"):
            open_index(tmp_path / "i")


def test_a_missing_extension_is_named_with_the_statement_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("A cat sleeps.")
    arguments = ["index", str(tmp_path / "i"), str(tmp_path / "a.txt"), "--vectors", "pgvector"]
    with database(extension=False) as bare:
        monkeypatch.setenv("VECTORS_DATABASE_URL", bare)
        assert main(arguments) == 1
    assert "run CREATE EXTENSION vector in that database" in capsys.readouterr().err
    assert not (tmp_path / "i/manifest.json").exists()


def test_a_folder_without_its_database_says_what_is_missing_and_tells_no_secret(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "i"
    update_index(folder, [CATS], settings=TABLE)
    assert url not in (folder / "manifest.json").read_text()
    monkeypatch.delenv("VECTORS_DATABASE_URL")
    with pytest.raises(RunFolderError, match="and VECTORS_DATABASE_URL is not set; set it to"):
        open_index(folder)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for wrong, said in (
        (f"postgres://u:s3cret@127.0.0.1:{port}/x", "which cannot be reached"),
        ("postgres://u:s3cret@127.0.0.1:pört/x", "VECTORS_DATABASE_URL"),
        (f"postgres://u:12/s3cret@127.0.0.1:{port}/x", "VECTORS_DATABASE_URL"),
        ("sqlite:///s3cret", "is no address of one"),
    ):
        monkeypatch.setenv("VECTORS_DATABASE_URL", wrong)
        with pytest.raises(RunFolderError, match=said) as caught:
            open_index(folder)
        assert str(folder) in str(caught.value)
        assert "s3cret" not in str(caught.value)


def test_a_comparison_makes_such_an_index_and_a_run_answers_from_it(
    url: str, tiny: Path, tmp_path: Path
) -> None:
    documents = [{"id": each.id, "text": each.text} for each in (CATS, SHIPS, TAX)]
    lines = "".join(json.dumps(row) + "\n" for row in documents)
    made = Stages(tmp_path / "out").index("rag-index", lines, {"vectors": "pgvector"})
    assert made.result["settings"]["vectors"] == "pgvector"
    settings = {"max_new_tokens": 1, "k": 1, "mode": "dense", "index": str(made.folder / "index")}
    prompt = {"user": "{passages}\n\n{question}"}
    config = {"method": "answer", "base": {"source": str(tiny)}}
    question = {"id": "q", "question": "When is income tax due?", "documents": ["tax"]}
    run = make_run(
        tmp_path / "run", {**config, "answer": {**settings, "prompt": prompt}},
        test=[{**question, "answers": ["April"]}],
    )  # fmt: skip
    assert main(["run", str(run)]) == 0
    assert result(run)["metrics"]["answer/recall"] == 1.0
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(url.encode() in text for text in texts)


def test_an_index_without_vectors_needs_no_database() -> None:
    with pytest.raises(ConfigError, match="vectors is 'pgvector'; allowed: usearch"):
        IndexSettings(dense=False, vectors="pgvector")
    with pytest.raises(ConfigError, match="vectors is 'faiss'; allowed: usearch, pgvector"):
        IndexSettings(vectors="faiss")
