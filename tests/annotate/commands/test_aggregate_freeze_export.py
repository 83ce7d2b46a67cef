"""The commands that follow an import, and what they say where one has nothing to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management.base import CommandError

from annotate.models import Aggregation, Project, Snapshot
from tests.annotate.commands.running import run
from tests.annotate.export.snapshots import DEMO_DATA
from tests.factories import make_project
from tests.people import People

PROJECT = ("--project", "helpful", "--workspace", "lab")


@pytest.fixture
def project(people: People) -> Project:
    return make_project(people.workspace)


def test_from_an_import_to_a_folder(project: Project, tmp_path: Path) -> None:
    run("import_comparisons", DEMO_DATA / "pandalm.jsonl.gz", *PROJECT)
    printed = run("aggregate", *PROJECT)
    assert "849 judgments on 283 comparisons" in printed
    assert "Krippendorff's alpha 0." in printed
    assert "next: manage.py freeze_snapshot --project helpful" in printed

    printed = run("freeze_snapshot", *PROJECT)
    snapshot = Snapshot.objects.get()
    assert f"snapshot {snapshot.pk} (Helpful snapshot 1)" in printed
    assert f"train {snapshot.n_train}, test {snapshot.n_test}" in printed
    assert f"sha256 {snapshot.sha256}" in printed
    assert "left out: 24 tie" in printed
    assert snapshot.aggregation == Aggregation.objects.get()

    printed = run("export_snapshot", snapshot.pk, "--out", tmp_path / "out", "--format", "jsonl")
    assert f"wrote {snapshot.n_train + snapshot.n_test} rows to {tmp_path / 'out'}" in printed
    assert (tmp_path / "out" / "data" / "test.jsonl").exists()


def test_without_judgments_each_says_what_is_missing(project: Project) -> None:
    printed = run("aggregate", *PROJECT)
    assert "agreement: not available, there are no judgments yet" in printed
    assert "next: import or make judgments in helpful" in printed
    with pytest.raises(CommandError, match="no train rows: 0 of 0 judged comparisons"):
        run("freeze_snapshot", *PROJECT)
    with pytest.raises(CommandError, match="there is no snapshot 7; freeze one with"):
        run("export_snapshot", 7, "--out", "anywhere")


def test_an_unknown_project_is_answered(people: People) -> None:
    for command in ("aggregate", "freeze_snapshot"):
        with pytest.raises(CommandError, match="there is no project 'helpful'"):
            run(command, *PROJECT)


def test_a_place_that_cannot_be_written_is_answered(project: Project, tmp_path: Path) -> None:
    run("import_comparisons", DEMO_DATA / "pandalm.jsonl.gz", *PROJECT)
    run("freeze_snapshot", *PROJECT)
    snapshot = Snapshot.objects.get()
    (tmp_path / "file").write_text("mine")
    for place, reason in (
        (tmp_path / "file" / "below", "below could not be written"),
        (Path("/proc/nowhere"), "/proc/nowhere could not be written"),
        (tmp_path / "file", "is a file; name a folder"),
        (tmp_path, "holds other files"),
    ):
        with pytest.raises(CommandError, match=reason):
            run("export_snapshot", snapshot.pk, "--out", place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("share", ["0", "1", "2", "nan"])
def test_an_impossible_share_is_answered(project: Project, share: str) -> None:
    with pytest.raises(CommandError, match="the test fraction is"):
        run("freeze_snapshot", *PROJECT, "--test-fraction", share)
