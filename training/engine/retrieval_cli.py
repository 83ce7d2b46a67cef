"""`python -m training.engine index` and `search`: their options, and what they print."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.engine.errors import DataError

EXIT_DONE = 0


def add_commands(commands: Any) -> None:
    """Add `index` and `search` to the engine's commands."""
    index = commands.add_parser(
        "index",
        help="make an index of documents, or change one",
        description="Adds the documents that are named to the index in FOLDER, or puts them in the "
        "place of those of the same id. What has not changed is not encoded again.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    index.add_argument("folder", type=Path, metavar="FOLDER", help="the index; made if missing")
    index.add_argument(
        "documents",
        type=Path,
        nargs="*",
        metavar="PATH",
        help='text or Markdown, folders of them, or .jsonl rows {"id", "text", "title"?}',
    )
    index.add_argument("--remove", nargs="+", default=[], metavar="ID", help="documents to drop")
    index.add_argument(
        "--delete", action="store_true", help="the whole index, and its vectors in a database"
    )
    index.add_argument("--encoding", metavar="NAME", help="of text files, instead of UTF-8")
    index.add_argument("--chunk-tokens", type=int, metavar="N", help="longest chunk (200)")
    index.add_argument("--overlap-tokens", type=int, metavar="N", help="said again (40)")
    index.add_argument("--terms", metavar="KIND", help="auto, words or characters (auto)")
    index.add_argument("--encoder", metavar="SOURCE", help="minilm or a folder (minilm)")
    index.add_argument(
        "--vectors",
        metavar="KIND",
        help="usearch: in a file of FOLDER, or pgvector: in the PostgreSQL that the variable "
        "VECTORS_DATABASE_URL names (usearch)",
    )
    index.add_argument(
        "--sparse", dest="dense", action="store_false", default=None, help="bm25 only, no vectors"
    )
    search = commands.add_parser(
        "search",
        help="the chunks of an index that fit a query best",
        description="Prints the chunks of an index that fit a query best, best first.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    search.add_argument("folder", type=Path, metavar="FOLDER", help="made by `index`")
    search.add_argument("query", metavar="QUERY")
    search.add_argument("-k", type=int, default=5, metavar="N", help="how many chunks")
    search.add_argument(
        "--mode", default="hybrid", choices=("bm25", "dense", "hybrid"), help="what ranks them"
    )
    search.add_argument("--json", action="store_true", help="one JSON object a line")


def run(options: argparse.Namespace) -> int:
    """Do what the options say. Returns the exit status; raises EngineError."""
    return run_index(options) if options.command == "index" else run_search(options)


def run_index(options: argparse.Namespace) -> int:
    from training.engine.documents import read_documents
    from training.engine.retrieval import IndexSettings, delete_index, update_index

    if options.delete:
        if options.documents or options.remove:
            raise DataError("--delete is for the whole index: leave out documents and --remove")
        delete_index(options.folder)
        print(f"{options.folder}: deleted")
        return EXIT_DONE
    names = ("chunk_tokens", "overlap_tokens", "terms", "encoder", "vectors", "dense")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    settings = IndexSettings(**given) if given else None
    documents = []
    if options.documents or not options.remove:
        documents = read_documents(options.documents, encoding=options.encoding)
    done = update_index(options.folder, documents, remove=options.remove, settings=settings)
    print(
        f"{options.folder}: {done.added} added, {done.changed} changed, {done.removed} removed, "
        f"{done.unchanged} as before; {done.encoded} chunks encoded"
    )
    if done.advice:
        print(f"note: {done.advice}", file=sys.stderr)
    return EXIT_DONE


def run_search(options: argparse.Namespace) -> int:
    from training.engine.retrieval import open_index

    hits = open_index(options.folder).search(options.query, options.k, options.mode)
    for rank, hit in enumerate(hits, start=1):
        if options.json:
            print(json.dumps({"rank": rank, "score": hit.score, **asdict(hit.chunk)}))
        else:
            print(f"[{rank}] {hit.score:.4f} {hit.chunk.id}\n{hit.chunk.text}\n")
    if not hits:
        print("nothing found: no chunk shares a term with the query")
    return EXIT_DONE
