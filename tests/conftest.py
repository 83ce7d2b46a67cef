from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from huggingface_hub import constants
from pytest_django.fixtures import Settings

from tests.api.world import World, make_world
from tests.hub_server import TOKEN, Hub, running_hub
from tests.people import People, make_people

HISTORIES = [
    import_module(f"annotate.migrations.{name}")
    for name in ("0002_history_is_appended", "0004_machine_judges", "0005_answer_kinds")
]

#: Folders whose tests may run side by side, but for those that carry one of these marks.
LIGHT = ("accounts", "annotate", "api", "contracts", "engine", "training")
HEAVY = ("alone", "browser", "faults", "model")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` spreads over the cores."""
    here = Path(__file__).parent
    for item in items:
        marked = any(item.get_closest_marker(mark) for mark in HEAVY)
        if not marked and item.path.relative_to(here).parts[0] in LIGHT:
            item.add_marker("light")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """Tests with transaction=True end with a flush, which on SQLite is a DELETE of every row."""
    if connection.vendor == "sqlite":
        with django_db_blocker.unblock(), connection.schema_editor() as schema_editor:
            for history in HISTORIES:
                history.permit(schema_editor, "DELETE")


@pytest.fixture
def people(db: None) -> People:
    return make_people()


@pytest.fixture
def world(people: People, tmp_path: object) -> World:
    return make_world(people, tmp_path)  # type: ignore[arg-type]


@pytest.fixture
def hub(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that the settings point to; the suite's own offline switch is lifted."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with running_hub() as server:
        settings.HF_ENDPOINT, settings.HF_TOKEN = server.endpoint, TOKEN
        yield server
