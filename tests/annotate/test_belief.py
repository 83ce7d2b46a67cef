"""Aggregation, snapshots, exports and agreement."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from annotate.errors import AnnotateError, NothingToFreeze
from annotate.export.writers import export_snapshot, snapshot_lines
from annotate.formats.canonical import sha256
from annotate.models import Annotator, Preference, Project
from annotate.selectors.quality import project_agreement
from annotate.services.aggregation import aggregate_project, believe
from annotate.services.freezing import freeze_snapshot
from annotate.statistics.agreement import alpha_with_interval, counts_table, nominal_alpha
from annotate.statistics.intervals import wilson
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People


@pytest.mark.parametrize(
    ("answers", "outcome", "probability"),
    [
        ("a a b", "a", 2 / 3),
        ("a b", "tie", 0.5),
        ("a tie tie", "tie", 2 / 3),
        ("b tie", "b", 0.25),
        ("both_bad both_bad a", "both_bad", 1.0),
        ("both_bad", "both_bad", 0.5),
        ("a both_bad", "a", 1.0),
    ],
)
def test_majority_keeps_ties_honest(answers: str, outcome: str, probability: float) -> None:
    assert believe(Counter(answers.split())) == (outcome, pytest.approx(probability))


def judged_project(people: People, n: int = 20) -> Project:
    project = make_project(people.workspace)
    first = make_annotator(people.workspace, name="first")
    second = make_annotator(people.workspace, name="second")
    for number in range(n):
        comparison = make_comparison(project, prompt=f"Prompt {number}?")
        make_judgment(comparison, first, "a" if number % 2 else "b")
        make_judgment(comparison, second, "a" if number % 2 else "b")
    tie = make_comparison(project, prompt="Undecided?")
    make_judgment(tie, first, "tie")
    return project


def test_a_preference_names_its_judgments(people: People) -> None:
    aggregation = aggregate_project(project=judged_project(people))
    assert aggregation.summary["comparisons"] == 21
    assert aggregation.summary["tie"] == 1
    preference = Preference.objects.filter(outcome="a").first()
    assert preference is not None
    assert preference.judgments.count() == 2


def test_a_snapshot_splits_by_prompt_and_hashes_its_lines(people: People) -> None:
    snapshot = freeze_snapshot(project=judged_project(people), test_fraction=0.3)
    assert snapshot.n_train + snapshot.n_test == 20
    assert snapshot.summary["left_out"] == {"tie": 1}
    rows = list(snapshot.rows.order_by("position"))
    assert [row.digest for row in rows] == sorted(row.digest for row in rows)
    assert sha256("".join(row.content + "\n" for row in rows)) == snapshot.sha256
    prompts = {
        split: {
            json.loads(line)["prompt_id"] for line in snapshot_lines(snapshot=snapshot, split=split)
        }
        for split in ("train", "test")
    }
    assert not prompts["train"] & prompts["test"]


def test_the_hash_is_the_same_on_every_database_and_day(people: People) -> None:
    # Worked out once on SQLite; a change of this number changes every dataset's identity.
    snapshot = freeze_snapshot(project=judged_project(people), test_fraction=0.3)
    again = freeze_snapshot(project=snapshot.project, test_fraction=0.3)
    assert again.number == 2
    assert again.sha256 == snapshot.sha256
    assert snapshot.sha256 == GOLDEN


GOLDEN = "eddecc7908d0e418ba77511d8e9e36b324c19ba8607bf130bcaf570e470ea19d"


def test_rows_hold_nothing_of_the_annotators(people: People) -> None:
    snapshot = freeze_snapshot(project=judged_project(people), test_fraction=0.3)
    everything = "".join(row.content for row in snapshot.rows.all())
    for annotator in Annotator.objects.all():
        assert annotator.external_name not in everything
        assert annotator.pseudonym_key not in everything


def test_an_empty_split_is_refused(people: People) -> None:
    with pytest.raises(NothingToFreeze, match="no t"):
        freeze_snapshot(project=make_project(people.workspace))
    with pytest.raises(AnnotateError, match="between 0 and 1"):
        freeze_snapshot(project=make_project(people.workspace, slug="b"), test_fraction=1.5)


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_datasets_loads_an_export_as_it_is(
    format: str, people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    from datasets import load_dataset

    snapshot = freeze_snapshot(project=judged_project(people), test_fraction=0.3)
    folder = export_snapshot(snapshot=snapshot, folder=tmp_path / "out", format=format)
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == snapshot.n_train
    assert loaded["test"].num_rows == snapshot.n_test
    assert loaded["train"][0]["chosen"][0]["role"] == "assistant"


def test_exporting_twice_gives_equal_bytes_and_spares_other_files(
    people: People, tmp_path: Path
) -> None:
    snapshot = freeze_snapshot(project=judged_project(people), test_fraction=0.3)
    name = "data/train-00000-of-00001.parquet"
    first = (export_snapshot(snapshot=snapshot, folder=tmp_path / "out") / name).read_bytes()
    assert (
        export_snapshot(snapshot=snapshot, folder=tmp_path / "out") / name
    ).read_bytes() == first
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not delete")
    with pytest.raises(AnnotateError, match="other files"):
        export_snapshot(snapshot=snapshot, folder=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_alpha_equals_krippendorffs_own_example() -> None:
    # Krippendorff 2011, section C: 4 observers, 12 units, missing data ("."); nominal alpha 0.743
    observers = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    units = [[row[unit] for row in observers if row[unit] != "."] for unit in range(12)]
    alpha = nominal_alpha(counts_table(units))
    assert alpha == pytest.approx(0.743, abs=5e-4)


def test_alpha_is_undefined_where_nobody_could_disagree() -> None:
    found = alpha_with_interval([["a", "a"], ["a", "a"]], ["p", "q"])
    assert found.value is None
    assert "same answer" in found.reason
    assert alpha_with_interval([["a"]], ["p"]).value is None


def test_wilson_equals_its_textbook_values() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_full_agreement_is_one(people: People) -> None:
    found = project_agreement(project=judged_project(people))
    assert found.alpha == 1.0
    assert (found.n_comparisons, found.n_annotators) == (20, 2)
