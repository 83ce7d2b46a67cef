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
from tests.factories import make_annotator, make_judgment
from tests.people import People


@pytest.fixture
def snapshot(people: People) -> Snapshot:
    return real_snapshot(people.workspace)


def card_of(snapshot: Snapshot, folder: Path) -> str:
    return (export_snapshot(snapshot=snapshot, folder=folder) / "README.md").read_text("utf-8")


def test_the_front_matter_is_what_the_hub_reads(snapshot: Snapshot, tmp_path: Path) -> None:
    front = yaml.safe_load(card_of(snapshot, tmp_path / "out").split("---\n")[1])
    assert front["pretty_name"] == "helpful preferences, snapshot 1"
    assert front["size_categories"] == ["n<1K"]
    assert {"human-feedback", "trl", "dpo"} <= set(front["tags"])
    assert front["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train-*.parquet"},
                {"split": "test", "path": "data/test-*.parquet"},
            ],
        }
    ]


def test_the_body_tells_counts_rules_agreement_and_hash(snapshot: Snapshot, tmp_path: Path) -> None:
    card = card_of(snapshot, tmp_path / "out")
    assert f"`{snapshot.sha256}`" in card
    assert f"| train rows | {snapshot.n_train} |" in card
    assert f"| left out | {snapshot.summary['left_out']['tie']} tie |" in card
    assert "Belief: majority v1" in card
    assert re.search(r"0\.\d{3} \[95 % interval 0\.\d{3} to 0\.\d{3}, clustered by prompt\]", card)


def test_the_card_of_a_frozen_snapshot_does_not_move(snapshot: Snapshot, tmp_path: Path) -> None:
    before = card_of(snapshot, tmp_path / "before")
    comparison = snapshot.project.comparisons.earliest("pk")
    make_judgment(comparison, make_annotator(snapshot.workspace, name="a late one"), "tie")
    assert card_of(snapshot, tmp_path / "after") == before


def test_a_projects_name_never_reaches_the_card(snapshot: Snapshot, tmp_path: Path) -> None:
    # Its short name does, and that holds letters, digits, - and _ alone.
    snapshot.project.name = 'x"\n---\nlicense: mit\n<script>alert(1)</script>'
    card = card_of(snapshot, tmp_path / "out")
    assert "script" not in card
    assert "license" not in yaml.safe_load(card.split("---\n")[1])


def test_no_annotator_is_named(snapshot: Snapshot, tmp_path: Path) -> None:
    assert "annotator1" not in card_of(snapshot, tmp_path / "out")
    assert "crowd" not in card_of(snapshot, tmp_path / "out")


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_the_check_of_the_hash_that_the_card_prints_gives_the_hash(
    snapshot: Snapshot, tmp_path: Path, format: str
) -> None:
    folder = export_snapshot(snapshot=snapshot, folder=tmp_path / "out", format=format)
    card = (folder / "README.md").read_text("utf-8")
    code = card.split("## Checking the hash\n```python\n")[1].split("```")[0]
    code = code.replace("PATH_OR_REPO", str(folder))
    environment = os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == snapshot.sha256
