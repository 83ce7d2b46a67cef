"""Judgments and snapshots are appended: both databases refuse to change or delete their rows."""

from __future__ import annotations

from importlib import import_module

import pytest
from django.db import IntegrityError, connection, models, transaction

from annotate.models import Judgment, Snapshot, SnapshotRow
from annotate.services.freezing import freeze_snapshot
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People

history = import_module("annotate.migrations.0002_history_is_appended")
HISTORY = {Judgment: "rationale", Snapshot: "sha256", SnapshotRow: "content"}


@pytest.fixture
def rows(people: People) -> dict[type[models.Model], models.Model]:
    project = make_project(people.workspace)
    for number in range(8):
        comparison = make_comparison(project, prompt=f"Question {number}?")
        make_judgment(comparison, make_annotator(people.workspace, name="someone"))
    freeze_snapshot(project=project, test_fraction=0.5)
    return {model: model._default_manager.earliest("pk") for model in HISTORY}


@pytest.mark.parametrize("model", HISTORY)
def test_a_row_cannot_be_changed(
    rows: dict[type[models.Model], models.Model], model: type[models.Model]
) -> None:
    row, field = rows[model], HISTORY[model]
    before = getattr(row, field)
    setattr(row, field, "rewritten")
    objects = model._default_manager
    for rewrite in (
        row.save,
        lambda: row.save(update_fields=[field]),
        lambda: objects.update(**{field: "rewritten"}),
        lambda: objects.bulk_update([row], [field]),
    ):
        with pytest.raises(IntegrityError, match="is history"), transaction.atomic():
            rewrite()
    row.refresh_from_db()
    assert getattr(row, field) == before


@pytest.mark.parametrize("model", HISTORY)
def test_a_row_cannot_be_deleted(
    rows: dict[type[models.Model], models.Model], model: type[models.Model]
) -> None:
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":  # tests/conftest.py has lifted these, for the flush
            cursor.execute(history.trigger("sqlite", table, "DELETE"))
        count = model._default_manager.count()
        with pytest.raises(IntegrityError, match="is history"), transaction.atomic():
            cursor.execute(f"DELETE FROM {table}")  # noqa: S608 - the table is a model's
        assert model._default_manager.count() == count > 0


def test_deleting_a_snapshot_by_the_orm_is_refused(
    rows: dict[type[models.Model], models.Model],
) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("the suite lifts the DELETE triggers on SQLite; the test above puts them back")
    with pytest.raises(IntegrityError, match="is history"), transaction.atomic():
        rows[Snapshot].delete()


def test_every_trigger_of_the_migration_is_there(db: None) -> None:
    # SQLite loses a table's triggers when a later migration rebuilds the table.
    query = (
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        if connection.vendor == "sqlite"
        else "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
    )
    with connection.cursor() as cursor:
        cursor.execute(query)
        found = {name for (name,) in cursor.fetchall()}
    events = ["update"] if connection.vendor == "sqlite" else ["update", "delete"]
    assert {f"{table}_no_{event}" for table in history.TABLES for event in events} <= found
