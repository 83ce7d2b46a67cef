"""Snapshots as files: a folder that `datasets.load_dataset` and TRL take as it is."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from annotate.errors import AnnotateError
from annotate.export.card import MARK, dataset_card
from annotate.models import Snapshot, SnapshotRow

CARD = "README.md"
DATA = "data"


def snapshot_lines(*, snapshot: Snapshot, split: str) -> Iterator[str]:
    """The canonical JSON lines of one split, in the snapshot's order, without line feeds."""
    rows = SnapshotRow.objects.filter(snapshot=snapshot, split=split).order_by("position")
    return rows.values_list("content", flat=True).iterator(chunk_size=500)


def export_snapshot(*, snapshot: Snapshot, folder: Path | str, format: str = "parquet") -> Path:
    """Write data files and dataset card beside `folder`, then put them in its place.

    An existing folder is replaced only if it is empty or holds an export of ours and nothing else.
    """
    if format not in WRITERS:
        raise AnnotateError(f"There is no format {format!r}; use {' or '.join(WRITERS)}.")
    folder = Path(folder).absolute()
    _check_replaceable(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _write(snapshot, beside, format)
            beside.chmod(0o755)
            _put_in_place(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise AnnotateError(
            f"{folder} could not be written ({error.strerror or error}); nothing was left behind."
        ) from error
    return folder


def _write(snapshot: Snapshot, folder: Path, format: str) -> None:
    (folder / DATA).mkdir()
    files = {}
    for split in SnapshotRow.Split.values:
        files[split] = f"{DATA}/{split}-00000-of-00001.{format}"
        WRITERS[format](snapshot_lines(snapshot=snapshot, split=split), folder / files[split])
    card = dataset_card(snapshot=snapshot, files=files)
    (folder / CARD).write_text(card, encoding="utf-8", newline="\n")


def _write_jsonl(lines: Iterator[str], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        for line in lines:
            handle.write(line + "\n")


def _write_parquet(lines: Iterator[str], path: Path) -> None:
    """Every setting that shapes the bytes is given, so that the same rows make the same file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("prompt_id", pa.string()),
            ("prompt", messages),
            ("chosen", messages),
            ("rejected", messages),
            ("probability", pa.float64()),
            ("n_judgments", pa.int64()),
            ("split", pa.string()),
        ]
    )
    table = pa.Table.from_pylist([json.loads(line) for line in lines], schema=schema)
    with path.open("wb") as handle:
        pq.write_table(
            table,
            handle,
            version="2.6",
            data_page_version="1.0",
            compression="snappy",
            use_dictionary=True,
            write_statistics=True,
            row_group_size=1000,
            store_schema=True,
        )


WRITERS: dict[str, Callable[[Iterator[str], Path], None]] = {
    "parquet": _write_parquet,
    "jsonl": _write_jsonl,
}


def _check_replaceable(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise AnnotateError(f"{folder} is not a folder; name one that does not exist yet.")
    if not folder.exists() or not any(folder.iterdir()):
        return
    strange = [
        path.relative_to(folder)
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not _is_ours(path.relative_to(folder))
    ]
    card = folder / CARD
    marked = card.is_file() and f"\n- {MARK}\n" in card.read_text("utf-8", errors="replace")
    if not marked or strange:
        found = f" ({strange[0]})" if strange else ""
        raise AnnotateError(
            f"{folder} holds something else{found}, which an export would overwrite; "
            "name an empty folder or one that does not exist yet."
        )


def _is_ours(path: Path) -> bool:
    splits = SnapshotRow.Split.values
    files = {f"{DATA}/{split}-00000-of-00001.{kind}" for split in splits for kind in WRITERS}
    return path.as_posix() in {CARD, DATA} | files


def _put_in_place(beside: Path, folder: Path) -> None:
    """Rename; an earlier export steps aside first and comes back if the rename fails."""
    if not folder.exists():
        beside.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.rename(aside / "old")
    try:
        beside.rename(folder)
    except OSError:
        (aside / "old").rename(folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
