from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine.tiny import save_tiny
from training.engine.config import BaseConfig
from training.engine.models import Base, load_base


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session", autouse=True)
def _engine_cache(tmp_path_factory: pytest.TempPathFactory):
    """Converted bases and cached log-probs of the tests stay out of the user's cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("ENGINE_CACHE_DIR", str(tmp_path_factory.mktemp("engine-cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def base(tiny: Path) -> Base:
    """The tiny model, loaded anew for each test (adapters change it)."""
    return load_base(BaseConfig(source=str(tiny)))
