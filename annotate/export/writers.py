"""Snapshots as folders that `datasets.load_dataset` and TRL read as they are."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from annotate.errors import AnnotateError
from annotate.export.card import dataset_card
from annotate.models import Snapshot, SnapshotRow

FORMATS = ("parquet", "jsonl")
#: A folder that holds this file is an export of ours and may be written again.
MARK = "snapshot.json"
DATA_FILES = [
    f"data/{split}{ending}"
    for split in SnapshotRow.Split.values
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
        if format == "jsonl":
            path = folder / "data" / f"{split}.jsonl"
            with path.open("w", encoding="utf-8", newline="\n") as handle:
                handle.writelines(f"{line}\n" for line in lines)
        else:
            rows = [json.loads(line) for line in lines]
            write_parquet(rows, folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text(dataset_card(snapshot, format), encoding="utf-8")
    mark = {"sha256": snapshot.sha256, "number": snapshot.number, "format": format}
    (folder / MARK).write_text(json.dumps(mark, sort_keys=True) + "\n", encoding="utf-8")


def write_parquet(rows: list[dict[str, object]], path: Path) -> None:
    """Parquet with a fixed schema and fixed writer settings: equal rows give equal bytes."""
    import pyarrow
    import pyarrow.parquet

    message = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
    # people's snapshots keep the bytes they had before machines could judge
    marked = any("judged_by" in row for row in rows)
    schema = pyarrow.schema(
        [
            ("id", pyarrow.string()),
            ("prompt_id", pyarrow.string()),
            ("prompt", pyarrow.list_(message)),
            ("chosen", pyarrow.list_(message)),
            ("rejected", pyarrow.list_(message)),
            ("probability", pyarrow.float64()),
            ("n_judgments", pyarrow.int64()),
            *([("judged_by", pyarrow.string())] if marked else []),
        ]
    )
    table = pyarrow.Table.from_pylist(rows, schema=schema)
    with path.open("wb") as handle:  # a full disk is then an OSError, and says so
        pyarrow.parquet.write_table(table, handle, compression="zstd", version="2.6")
