from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from annotate.errors import AnnotateError
from annotate.export.writers import export_snapshot, snapshot_lines
from annotate.models import Snapshot
from tests.annotate.export.snapshots import real_snapshot
from tests.people import People

FILES = {
    "parquet": ["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"],
    "jsonl": ["data/test.jsonl", "data/train.jsonl"],
}


@pytest.fixture
def snapshot(people: People) -> Snapshot:
    return real_snapshot(people.workspace, "hh-helpful")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def beside(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.iterdir()]


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_a_folder_with_two_files_and_a_card(
    snapshot: Snapshot, tmp_path: Path, format: str
) -> None:
    folder = export_snapshot(snapshot=snapshot, folder=tmp_path / "a" / "out", format=format)
    assert files(folder) == ["README.md", *FILES[format], "snapshot.json"]
    assert beside(folder) == ["out"]


def test_parquet_holds_the_rows_of_the_snapshot(snapshot: Snapshot, tmp_path: Path) -> None:
    folder = export_snapshot(snapshot=snapshot, folder=tmp_path / "out")
    for split, count in (("train", snapshot.n_train), ("test", snapshot.n_test)):
        rows = pq.read_table(folder / f"data/{split}-00000-of-00001.parquet").to_pylist()
        lines = list(snapshot_lines(snapshot=snapshot, split=split))
        assert rows == [json.loads(line) for line in lines]
        assert len(rows) == count > 0


def test_json_lines_are_the_hashed_lines_themselves(snapshot: Snapshot, tmp_path: Path) -> None:
    folder = export_snapshot(snapshot=snapshot, folder=tmp_path / "out", format="jsonl")
    lines: list[bytes] = []
    for path in sorted((folder / "data").iterdir()):
        lines += path.read_bytes().split(b"\n")[:-1]
    lines.sort(key=lambda line: hashlib.sha256(line).digest())
    whole = b"".join(line + b"\n" for line in lines)
    assert hashlib.sha256(whole).hexdigest() == snapshot.sha256


def test_a_second_export_is_the_same_to_the_byte(snapshot: Snapshot, tmp_path: Path) -> None:
    for format in ("parquet", "jsonl"):
        one, two = (
            export_snapshot(snapshot=snapshot, folder=tmp_path / f"{format}{n}", format=format)
            for n in (1, 2)
        )
        for name in files(one):
            assert (one / name).read_bytes() == (two / name).read_bytes()


def test_an_export_of_ours_is_replaced(snapshot: Snapshot, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    export_snapshot(snapshot=snapshot, folder=folder, format="jsonl")
    export_snapshot(snapshot=snapshot, folder=folder, format="parquet")
    assert files(folder) == ["README.md", *FILES["parquet"], "snapshot.json"]
    assert beside(folder) == ["out"]


@pytest.mark.parametrize("name", ["thesis.txt", "data/mine.parquet", "README.md"])
def test_a_folder_with_anything_else_in_it_is_left_alone(
    snapshot: Snapshot, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "out"
    (folder / "data").mkdir(parents=True)
    (folder / name).write_text("mine")
    with pytest.raises(AnnotateError, match="holds other files"):
        export_snapshot(snapshot=snapshot, folder=folder)
    assert files(folder) == [name]
    assert beside(folder) == ["out"]


def test_an_export_to_which_somebody_added_a_file_is_left_alone(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    folder = export_snapshot(snapshot=snapshot, folder=tmp_path / "out")
    (folder / "notes.md").write_text("mine")
    with pytest.raises(AnnotateError, match=r"holds other files \(notes\.md\)"):
        export_snapshot(snapshot=snapshot, folder=folder)


def test_a_file_in_the_place_of_the_folder_is_left_alone(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(AnnotateError, match="is a file; name a folder"):
        export_snapshot(snapshot=snapshot, folder=file)
    assert file.read_text() == "mine"


def test_an_unknown_format_is_refused(snapshot: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(AnnotateError, match="format 'csv' is none of parquet, jsonl"):
        export_snapshot(snapshot=snapshot, folder=tmp_path / "out", format="csv")


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_a_disk_that_is_full_leaves_nothing_half_written(
    snapshot: Snapshot, tmp_path: Path, format: str
) -> None:
    # The kernel's limit on the size of a file: a write beyond it fails as on a full disk.
    folder = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    list(snapshot_lines(snapshot=snapshot, split="train"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(AnnotateError, match=r"could not be written \(File too large\)"):
            export_snapshot(snapshot=snapshot, folder=folder, format=format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_error(snapshot: Snapshot, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(AnnotateError, match="Permission denied"):
        export_snapshot(snapshot=snapshot, folder=tmp_path / "out")


def test_the_module_does_not_load_pyarrow() -> None:
    code = (
        "import sys, os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'rlhf_platform.settings';"
        "django.setup(); import annotate.export.writers, annotate.services.ingest;"
        "print(sorted({'pyarrow', 'datasets', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
