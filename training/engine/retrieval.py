"""An index in a folder: BM25 over terms, vectors, and both joined by rank.

    manifest.json          settings, encoder and its hash, every document's hash, the data folder
    data-<digest>/         chunks.jsonl, vectors.usearch (or a table keeps them: `vector_table`)

An update writes a new data folder and then replaces the manifest, so a reader sees the old index
or the new one; a second writer is refused while one is at work (.lock, let go with its process). A
vector is kept under the hash of its text: documents that did not change, and stretches of those
that did, are not encoded again, and nothing is trained. BM25's weights depend on the whole
collection; they are counted anew from the chunks when an index is opened (bm25s).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bm25s
import numpy as np
from filelock import FileLock, Timeout

from training.engine.chunking import Chunk, chunks_of
from training.engine.config_trl import check
from training.engine.documents import Document, expect_distinct
from training.engine.embedding import DEFAULT, Encoder, foreign_letters
from training.engine.errors import DataError, RunFolderError
from training.engine.files import cannot_write, publish_folder, sha256_of_file, write_file
from training.engine.rundir import read_rows
from training.engine.terms import KINDS, terms
from training.engine.vector_store import STORES, FileVectors, VectorStore

if TYPE_CHECKING:
    from training.engine.vector_table import TableVectors

VERSION = 1
MODES = ("bm25", "dense", "hybrid")
#: Chunks, and characters of each, from which the script of an index is told.
SAMPLED = 200
#: Reciprocal rank fusion's constant (Cormack, Clarke & Büttcher 2009, section 2).
RRF = 60
#: Chunks that each of two rankings hands to their fusion, at least.
DEPTH = 100


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """How documents become what is searched; fixed when the index is made."""

    chunk_tokens: int = 200
    """Most tokens of a chunk, counted by the encoder's tokenizer."""
    overlap_tokens: int = 40
    """Most tokens that a chunk repeats of the one before."""
    terms: str = "auto"
    """auto, words or characters; see `terms`."""
    dense: bool = True
    """Whether chunks are encoded; without vectors only bm25 can be asked for."""
    encoder: str = DEFAULT
    """minilm (the packaged one), or the folder of an encoder."""
    vectors: str = "usearch"
    """What keeps the vectors: usearch (a file of the folder) or pgvector (a PostgreSQL table)."""

    def __post_init__(self) -> None:
        size, overlap = self.chunk_tokens, self.overlap_tokens
        check(8 <= size <= 8192, "chunk_tokens", size, "8 to 8192")
        check(0 <= overlap < size, "overlap_tokens", overlap, "0 up to below chunk_tokens")
        check(self.terms in KINDS, "terms", self.terms, ", ".join(KINDS))
        stores = STORES if self.dense else STORES[:1]
        check(self.vectors in stores, "vectors", self.vectors, ", ".join(stores))


@dataclass(frozen=True)
class Hit:
    """A chunk that was found. Scores compare within one mode and query only."""

    chunk: Chunk
    score: float


def key_of(chunk: Chunk) -> int:
    """63 bits of the hash of what is encoded: equal texts have one vector."""
    return int.from_bytes(hashlib.sha256(chunk.shown.encode()).digest()[:8], "big") >> 1


class Retriever:
    """Chunks in memory that can be searched."""

    def __init__(
        self,
        settings: IndexSettings,
        chunks: Sequence[Chunk],
        vectors: VectorStore | None,
        encoder: Encoder,
    ) -> None:
        self.settings, self.chunks, self.vectors, self.encoder = settings, chunks, vectors, encoder
        self._places: dict[int, list[int]] = {}
        for place, chunk in enumerate(chunks):
            self._places.setdefault(key_of(chunk), []).append(place)

    @cached_property
    def _sparse(self) -> bm25s.BM25:
        found = bm25s.BM25(method="lucene", k1=1.5, b=0.75, backend="numpy")
        counted = [terms(chunk.shown, self.settings.terms) or [""] for chunk in self.chunks]
        found.index(counted, show_progress=False)
        return found

    def search(self, query: str, k: int, mode: str = "hybrid") -> list[Hit]:
        """The k best chunks, best first; fewer where bm25 finds no common term.

        Raises DataError for an empty query, k above the chunks, or a mode the index cannot do.
        """
        if mode not in MODES:
            raise DataError(f"mode is {mode!r}; allowed: {', '.join(MODES)}")
        if not query.strip():
            raise DataError("the query is empty; ask for something")
        if not 1 <= k <= len(self.chunks):
            raise DataError(f"k is {k}, and the index has {len(self.chunks)} chunks; ask for fewer")
        if mode == "bm25":
            ranked = self._by_terms(query, k)
        elif mode == "dense":
            ranked = self._by_vector(query, k)
        else:
            depth = min(len(self.chunks), max(DEPTH, k))
            ranked = fused([self._by_terms(query, depth), self._by_vector(query, depth)])[:k]
        return [Hit(self.chunks[place], score) for place, score in ranked]

    def _by_terms(self, query: str, k: int) -> list[tuple[int, float]]:
        known = [t for t in terms(query, self.settings.terms) if t in self._sparse.vocab_dict]
        if not known:
            return []
        scores = np.asarray(self._sparse.get_scores(known))
        order = np.argsort(-scores, kind="stable")[:k]
        return [(int(place), float(scores[place])) for place in order if scores[place] > 0.0]

    def _by_vector(self, query: str, k: int) -> list[tuple[int, float]]:
        if self.vectors is None:
            raise DataError("the index holds no vectors (dense is false); search it by bm25")
        found = self.vectors.search(self.encoder.encode([query])[0], min(k, len(self.vectors)))
        ranked = [(place, 1.0 - distance) for key, distance in found for place in self._places[key]]
        return sorted(ranked, key=lambda each: (-each[1], each[0]))[:k]

    def rank_documents(self, query: str, k: int, mode: str) -> list[str]:
        """Documents in the order of their best chunks, among the k best chunks."""
        hits = self.search(query, min(k, len(self.chunks)), mode)
        return list(dict.fromkeys(hit.chunk.document for hit in hits))


def fused(rankings: Iterable[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    """Reciprocal rank fusion: score = Σ 1 / (60 + rank) over the rankings that name a place."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, (place, _) in enumerate(ranking, start=1):
            scores[place] = scores.get(place, 0.0) + 1.0 / (RRF + rank)
    return sorted(scores.items(), key=lambda each: (-each[1], each[0]))


@dataclass(frozen=True)
class Changes:
    """What an update did, counted in documents; `encoded` in chunks. advice: "" or a sentence."""

    added: int
    changed: int
    removed: int
    unchanged: int
    encoded: int
    advice: str


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises RunFolderError for what is no index, a damaged one, or a newer version's."""
    path = folder / "manifest.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        made_by = int(found["version"])
        documents, data, files = found["documents"], found["data"], found["files"]
        named = isinstance(documents, dict) and isinstance(files, dict) and Path(data).name == data
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{folder} holds no index that can be read ({error})") from None
    if made_by > VERSION or not named:
        raise RunFolderError(f"{path} is damaged, or of a newer version; index the documents again")
    return found


def open_index(folder: Path) -> Retriever:
    """A saved index, its files checked against their hashes. Raises RunFolderError.

    Where a database keeps the vectors, VECTORS_DATABASE_URL of the environment names it.
    """
    manifest = read_manifest(folder)
    data = folder / manifest["data"]
    for name, digest in manifest["files"].items():
        if not (data / name).is_file() or sha256_of_file(data / name) != digest:
            raise RunFolderError(f"{data / name} is missing or damaged; index the documents again")
    settings = IndexSettings(**manifest["settings"])
    encoder = Encoder(settings.encoder)
    if settings.dense and encoder.sha256 != manifest["encoder_sha256"]:
        raise RunFolderError(
            f"{folder} was made with another encoder of the name {settings.encoder}: their vectors "
            "do not compare; index the documents in a new folder"
        )
    chunks = [Chunk(**row) for row in read_rows(data / "chunks.jsonl")]
    return Retriever(settings, chunks, open_vectors(folder, manifest, chunks, encoder), encoder)


def open_vectors(
    folder: Path, manifest: Mapping[str, Any], chunks: Sequence[Chunk], encoder: Encoder
) -> VectorStore | None:
    """The vectors of a saved index. Raises RunFolderError."""
    settings, data = IndexSettings(**manifest["settings"]), folder / manifest["data"]
    if not settings.dense:
        return None
    if settings.vectors == "usearch":
        return FileVectors.restored(data)
    table = table_of(folder, str(manifest.get("vectors_id")), encoder.size)
    table.expect({key_of(chunk) for chunk in chunks}, data / "chunks.jsonl")
    return table


def table_of(folder: Path, index_id: str, size: int) -> TableVectors:
    """The rows of one index, each a vector of `size` numbers.

    Raises RunFolderError where the library is missing.
    """
    try:
        from training.engine.vector_table import TableVectors
    except ImportError as error:
        raise RunFolderError(
            f"the vectors of {folder} are kept in PostgreSQL, and a library for that cannot be "
            f"imported ({error}); install what requirements/train.lock names"
        ) from None
    return TableVectors(index_id, size, folder)


def in_memory(documents: Sequence[Document], *, dense: bool) -> Retriever:
    """Documents that can be searched as they are, in no folder and not cut."""
    settings, encoder = IndexSettings(dense=dense), Encoder()
    chunks = [Chunk(each.id, 0, len(each.text), each.text, each.title) for each in documents]
    vectors = FileVectors.empty(encoder.size) if dense else None
    if vectors is not None:
        encode_into(vectors, chunks, encoder)
    return Retriever(settings, chunks, vectors, encoder)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keeps other processes from changing an index. Raises RunFolderError where one does."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise RunFolderError(
            f"{folder} is being changed by another process; start again once that has ended"
        ) from None
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def update_index(
    folder: Path,
    documents: Sequence[Document],
    *,
    remove: Sequence[str] = (),
    settings: IndexSettings | None = None,
) -> Changes:
    """Make an index, or add, change and remove documents of one.

    settings: of a new index; those of an existing one cannot change. Raises DataError for wrong
    documents, and where none would be left; RunFolderError for a folder that is something else, or
    that another process is changing.
    """
    if documents or not (folder / "manifest.json").exists():
        expect_distinct(documents)
    with only_writer(folder):
        return _update(folder, documents, remove, settings)


def delete_index(folder: Path) -> None:
    """Delete an index: its vectors wherever they are, its files, and the folder if that is empty.

    Raises RunFolderError for a folder that is something else, that another process is changing, or
    whose vectors' database cannot be reached; the index is then as it was.
    """
    read_manifest(folder)
    with only_writer(folder):
        manifest = read_manifest(folder)
        if IndexSettings(**manifest["settings"]).vectors == "pgvector":
            table_of(folder, str(manifest.get("vectors_id")), 0).delete()
        try:
            (folder / "manifest.json").unlink()
        except OSError as error:
            raise cannot_write(folder, error) from error
        for data in folder.glob("data-*"):
            shutil.rmtree(data, ignore_errors=True)
    with contextlib.suppress(OSError):  # somebody keeps something else there
        (folder / ".lock").unlink(missing_ok=True)
        folder.rmdir()


def _update(
    folder: Path,
    documents: Sequence[Document],
    remove: Sequence[str],
    settings: IndexSettings | None,
) -> Changes:
    """`update_index` of whoever holds the lock."""
    before: dict[str, Any] | None = None
    old: Retriever | None = None
    if (folder / "manifest.json").exists():
        before, old = read_manifest(folder), open_index(folder)
        if settings is not None and settings != old.settings:
            raise RunFolderError(f"{folder} was made with other settings; use a new folder")
    known: dict[str, str] = before["documents"] if before else {}
    absent = sorted(set(remove) - set(known))
    if absent:
        raise DataError(f"document {absent[0]!r} is to be removed, and the index has none such")
    given = {each.id: each.sha256 for each in documents}
    kept = {name: digest for name, digest in known.items() if name not in remove}
    fresh = [each for each in documents if kept.get(each.id) != each.sha256]
    chosen = old.settings if old else settings or IndexSettings()
    encoder = old.encoder if old else Encoder(chosen.encoder)
    if chosen.dense:
        check(
            chosen.chunk_tokens <= encoder.longest - 2, "chunk_tokens", chosen.chunk_tokens,
            f"at most {encoder.longest - 2} with this encoder, which reads no more",
        )  # fmt: skip
    gone = {*remove, *(each.id for each in fresh)}
    chunks = [chunk for chunk in (old.chunks if old else ()) if chunk.document not in gone]
    for each in fresh:
        chunks += chunks_of(
            each, encoder, tokens=chosen.chunk_tokens, overlap=chosen.overlap_tokens
        )
    chunks.sort(key=lambda chunk: (chunk.document, chunk.start))
    digests = dict(sorted((kept | given).items()))
    if not chunks:
        raise DataError("no document would be left; delete the index's folder instead")
    vectors = old.vectors if old else new_vectors(folder, chosen, encoder)
    encoded = encode_into(vectors, chunks, encoder) if vectors is not None else 0
    save(folder, chosen, digests, chunks, vectors, encoder, before)
    changed = sum(each.id in kept for each in fresh)
    return Changes(
        added=len(fresh) - changed,
        changed=changed,
        removed=len(remove),
        unchanged=len(digests) - len(fresh),
        encoded=encoded,
        advice=advice(chosen, chunks),
    )


def advice(settings: IndexSettings, chunks: Sequence[Chunk]) -> str:
    """What whoever ranks by vectors should know of an index; "" where there is nothing to say."""
    sample = (chunk.text[:SAMPLED] for chunk in chunks[:SAMPLED])
    if not settings.dense or settings.encoder != DEFAULT or foreign_letters(sample) <= 0.5:
        return ""
    return (
        "most letters here are not Latin, and the packaged encoder is English: bm25 alone finds "
        "more than hybrid or dense (XQuAD in Chinese: 0.997 of the paragraphs, hybrid 0.876); "
        "choose the mode bm25, or index with an encoder that knows the language"
    )


def new_vectors(folder: Path, settings: IndexSettings, encoder: Encoder) -> VectorStore | None:
    """Those of an index that is made, none so far. Raises RunFolderError."""
    if not settings.dense:
        return None
    if settings.vectors == "usearch":
        return FileVectors.empty(encoder.size)
    return table_of(folder, secrets.token_hex(8), encoder.size)


def encode_into(vectors: VectorStore, chunks: Sequence[Chunk], encoder: Encoder) -> int:
    """Make them the vectors of these chunks and of no others. Returns how many were encoded."""
    texts = {key_of(chunk): chunk.shown for chunk in chunks}
    there = vectors.keys()
    new = [key for key in texts if key not in there]
    made = np.zeros((0, encoder.size), dtype=np.float32)
    if new:
        made = encoder.encode([texts[key] for key in new])
    vectors.change(texts.keys(), new, made)
    return len(new)


def save(
    folder: Path,
    settings: IndexSettings,
    documents: Mapping[str, str],
    chunks: Sequence[Chunk],
    vectors: VectorStore | None,
    encoder: Encoder,
    before: Mapping[str, Any] | None,
) -> None:
    """Write a new data folder, then the manifest that names it, then drop the old one."""
    name = f"data-{secrets.token_hex(8)}"
    beside = folder / f".{name}"
    lines = "".join(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in chunks)
    try:
        beside.mkdir(parents=True)
        (beside / "chunks.jsonl").write_text(lines, encoding="utf-8", newline="\n")
        if vectors is not None:
            vectors.save(beside)
        files = {path.name: sha256_of_file(path) for path in sorted(beside.iterdir())}
        publish_folder(beside, folder / name)
    except (OSError, RuntimeError) as error:  # usearch raises RuntimeError
        shutil.rmtree(beside, ignore_errors=True)
        raise cannot_write(folder / name, error, len(lines.encode())) from error
    manifest = {
        "version": VERSION,
        "settings": asdict(settings),
        "encoder_sha256": encoder.sha256 if settings.dense else None,
        "vectors_id": vectors.index_id if vectors is not None else None,
        "versions": {package: version(package) for package in ("bm25s", settings.vectors)},
        "documents": documents,
        "data": name,
        "files": files,
    }
    write_file(folder / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    if before is not None:
        shutil.rmtree(folder / before["data"], ignore_errors=True)
    if vectors is not None:
        vectors.settle()  # last, since readers of the old state see by its data that it is gone
