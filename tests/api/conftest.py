from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.world import World, make_world
from tests.people import People


@pytest.fixture
def world(people: People, tmp_path: Path) -> World:
    return make_world(people, tmp_path)
