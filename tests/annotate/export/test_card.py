from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from annotate.export.writers import export_snapshot
from annotate.models import Snapshot
from tests.annotate.export.snapshots import real_snapshot
from tests.people import People


@pytest.fixture
def snapshot(people: People) -> Snapshot:
    return real_snapshot(people.workspace)


def card_of(snapshot: Snapshot, folder: Path) -> str:
    return (export_snapshot(snapshot=snapshot, folder=folder) / "README.md").read_text("utf-8")


def test_the_front_matter_is_what_the_hub_reads(snapshot: Snapshot, tmp_path: Path) -> None:
    front = yaml.safe_load(card_of(snapshot, tmp_path / "out").split("---\n")[1])
    assert front["pretty_name"] == "Helpful, snapshot 1"
    assert front["size_categories"] == ["n<1K"]
    assert {"human-feedback", "trl", "dpo"} <= set(front["tags"])
    assert front["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train-00000-of-00001.parquet"},
                {"split": "test", "path": "data/test-00000-of-00001.parquet"},
            ],
        }
    ]


def test_the_body_tells_counts_rules_agreement_sources_and_hash(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    card = card_of(snapshot, tmp_path / "out")
    assert f"`{snapshot.sha256}`" in card
    assert f"| train | {snapshot.n_train} |" in card
    assert f"Left out: {snapshot.summary['left_out']['tie']} tie." in card
    assert "tie where these are equal or ties outnumber both" in card
    assert "- salt: split-1" in card
    assert re.search(r"alpha \(nominal\) 0\.\d{3}, 95 % interval 0\.\d{3} to 0\.\d{3}", card)
    assert "import hh-rlhf: 262 judged pairs; HH-RLHF, MIT" in card
    assert "import pandalm: 283 judged pairs; PandaLM test set, Apache-2.0" in card
    assert "Imported judgments were made under guidelines of their own." in card


def test_a_hostile_name_stays_a_name(snapshot: Snapshot, tmp_path: Path) -> None:
    name = 'x"\n---\nlicense: mit\n<script>alert(1)</script> [a](javascript:b) `c`'
    snapshot.project.name = name
    card = card_of(snapshot, tmp_path / "out")
    front, body = card.split("\n---\n", 1)
    assert yaml.safe_load(front.removeprefix("---\n"))["pretty_name"] == f"{name}, snapshot 1"
    assert yaml.safe_load(front.removeprefix("---\n"))["license"] == "other"
    assert "<script>" not in body
    assert "](javascript" not in body


def test_no_annotator_is_named(snapshot: Snapshot, tmp_path: Path) -> None:
    assert "annotator1" not in card_of(snapshot, tmp_path / "out")
    assert "crowd" not in card_of(snapshot, tmp_path / "out")


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_the_check_of_the_hash_that_the_card_prints_gives_the_hash(
    snapshot: Snapshot, tmp_path: Path, format: str
) -> None:
    folder = export_snapshot(snapshot=snapshot, folder=tmp_path / "out", format=format)
    card = (folder / "README.md").read_text("utf-8")
    code = card.split("## Check the hash\n```python\n")[1].split("```")[0]
    code = code.replace("path/to/this/folder", str(folder))
    environment = os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == snapshot.sha256
