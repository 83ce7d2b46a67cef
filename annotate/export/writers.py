"""Snapshots as folders that `datasets.load_dataset` and TRL read as they are."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from annotate.errors import AnnotateError
from annotate.export.card import dataset_card
from annotate.formats.canonical import canonical_json
from annotate.models import Project, Snapshot, SnapshotRow

FORMATS = ("parquet", "jsonl")
#: A folder that holds this file is an export of ours and may be written again.
MARK = "snapshot.json"
#: The file of rewritten answers, a config of its own for `datasets`.
REWRITTEN = "rewrites"
DATA_FILES = [
    f"data/{split}{ending}"
    for split in (*SnapshotRow.Split.values, REWRITTEN)
    for ending in (".jsonl", "-00000-of-00001.parquet")
]


def snapshot_lines(*, snapshot: Snapshot, split: str | None = None) -> Iterator[str]:
    """The canonical JSON of every row of a split, or of both, in the canonical order.

    Of both, each with a line feed after it, the SHA-256 is the snapshot's own.
    """
    rows = snapshot.rows.order_by("position")
    if split is not None:
        rows = rows.filter(split=split)
    yield from rows.values_list("content", flat=True).iterator(chunk_size=2000)


def export_snapshot(*, snapshot: Snapshot, folder: Path, format: str = "parquet") -> Path:
    """Write data files and dataset card into `folder`: beside first, then renamed.

    Raises AnnotateError for an unknown format, a folder with somebody else's files, or a full disk.
    """
    if format not in FORMATS:
        raise AnnotateError(f"format {format!r} is none of {', '.join(FORMATS)}")
    folder = folder.expanduser().resolve()
    check_replaceable(folder)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        (beside / "data").mkdir(parents=True)
        write_folder(snapshot, beside, format)
        put_in_place(beside, folder)
    except OSError as error:
        raise AnnotateError(
            f"{folder} could not be written ({error.strerror or error}); nothing was left behind"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def completions(snapshot: Snapshot) -> Iterator[str]:
    """Every rewritten answer of the train rows as a row to fine-tune on, in the canonical order."""
    for line in snapshot_lines(snapshot=snapshot, split=SnapshotRow.Split.TRAIN):
        row = json.loads(line)
        for number, rewrite in enumerate(row["rewrites"], start=1):
            completion = {"role": "assistant", "content": rewrite["text"]}
            yield canonical_json(
                {
                    "id": f"{row['id']}-{number}",
                    "prompt_id": row["prompt_id"],
                    "prompt": row["prompt"],
                    "completion": [completion],
                }
            )


def check_replaceable(folder: Path) -> None:
    """Raise AnnotateError unless the folder is new, empty, or an export and nothing else."""
    if folder.exists() and not folder.is_dir():
        raise AnnotateError(f"{folder} is a file; name a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    strange = sorted(found - {"README.md", MARK, "data", *DATA_FILES})
    if strange or MARK not in found:
        named = f" ({strange[0]})" if strange else ""
        raise AnnotateError(f"{folder} holds other files{named}; name a new or empty folder")


def put_in_place(beside: Path, folder: Path) -> None:
    """Rename; an earlier export steps aside first, and comes back if the rename fails."""
    if not folder.exists():
        beside.rename(folder)
        return
    aside = beside.with_name(f"{beside.name}.old")
    folder.rename(aside)
    try:
        beside.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    shutil.rmtree(aside)


def write_folder(snapshot: Snapshot, folder: Path, format: str) -> None:
    for split in SnapshotRow.Split.values:
        lines = snapshot_lines(snapshot=snapshot, split=split)
        write_rows(lines, folder / "data" / split, format, snapshot)
    rewritten = list(completions(snapshot)) if "rewrites" in snapshot.rule else []
    if rewritten:
        write_rows(rewritten, folder / "data" / REWRITTEN, format, snapshot, COMPLETIONS)
    (folder / "README.md").write_text(dataset_card(snapshot, format), encoding="utf-8")
    mark = {"sha256": snapshot.sha256, "number": snapshot.number, "format": format}
    (folder / MARK).write_text(json.dumps(mark, sort_keys=True) + "\n", encoding="utf-8")


def write_rows(
    lines: Iterable[str],
    stem: Path,
    format: str,
    snapshot: Snapshot,
    columns: Sequence[tuple[str, str]] | None = None,
) -> None:
    """One data file; `stem` is its name without an ending."""
    if format == "jsonl":
        with stem.with_suffix(".jsonl").open("w", encoding="utf-8", newline="\n") as handle:
            handle.writelines(f"{line}\n" for line in lines)
        return
    rows = [json.loads(line) for line in lines]
    path = stem.with_name(f"{stem.name}-00000-of-00001.parquet")
    write_parquet(rows, path, columns or columns_of(snapshot, rows))


#: (name, kind) of the columns of a row about two responses, and of a labelled text.
COMPARED = [
    ("id", "text"),
    ("prompt_id", "text"),
    ("prompt", "messages"),
    ("chosen", "messages"),
    ("rejected", "messages"),
    ("probability", "number"),
    ("n_judgments", "count"),
]
#: What rows have beside that where people were asked more (annotate/services/freezing_replies.py).
REPLIES = [("margin", "number"), ("judgments", "judgments"), ("rewrites", "rewrites")]
#: An answer that somebody rewrote, in TRL's prompt-completion layout.
COMPLETIONS = [
    ("id", "text"),
    ("prompt_id", "text"),
    ("prompt", "messages"),
    ("completion", "messages"),
]
LABELLED = [
    ("id", "text"),
    ("text", "text"),
    ("messages", "messages"),
    ("label", "text"),
    ("weight", "number"),
    ("n_judgments", "count"),
]


def columns_of(snapshot: Snapshot, rows: list[dict[str, object]]) -> list[tuple[str, str]]:
    """The columns of a split; a snapshot of labels has text or messages, never both."""
    if snapshot.project.kind != Project.Kind.LABELS:
        # people's snapshots keep the bytes they had before machines could judge
        marked = any("judged_by" in row for row in rows)
        columns = [*COMPARED, ("judged_by", "text")] if marked else list(COMPARED)
        return columns + [(name, kind) for name, kind in REPLIES if name in rows[0]]
    return [(name, kind) for name, kind in LABELLED if name in rows[0]]


def write_parquet(
    rows: list[dict[str, object]], path: Path, columns: Sequence[tuple[str, str]] = COMPARED
) -> None:
    """Parquet with a fixed schema and fixed writer settings: equal rows give equal bytes."""
    import pyarrow
    import pyarrow.parquet

    message = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
    text, count = pyarrow.string(), pyarrow.int64()

    def listed(**fields: pyarrow.DataType) -> pyarrow.DataType:
        return pyarrow.list_(pyarrow.struct(list(fields.items())))

    kinds = {
        "text": text,
        "number": pyarrow.float64(),
        "count": count,
        "messages": pyarrow.list_(message),
        "rewrites": listed(of=text, text=text),
        "judgments": listed(
            annotator=text,
            choice=text,
            both_bad=pyarrow.bool_(),
            strength=count,
            aspects=listed(name=text, better=text),
            ratings=listed(of=text, name=text, score=count),
            reasons=pyarrow.list_(text),
            spans=listed(of=text, start=count, end=count, category=text),
            known_model=pyarrow.bool_(),
        ),
    }
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns])
    table = pyarrow.Table.from_pylist(rows, schema=schema)
    with path.open("wb") as handle:  # a full disk is then an OSError, and says so
        pyarrow.parquet.write_table(table, handle, compression="zstd", version="2.6")
