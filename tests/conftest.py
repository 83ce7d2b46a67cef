from __future__ import annotations

import pytest

from tests.api.world import World, make_world
from tests.people import People, make_people


@pytest.fixture
def people(db: None) -> People:
    return make_people()


@pytest.fixture
def world(people: People, tmp_path: object) -> World:
    return make_world(people, tmp_path)  # type: ignore[arg-type]
